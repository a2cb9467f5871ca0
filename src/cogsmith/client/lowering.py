"""A call in the words of the server: one operation of LMTP 1.1, or as many of 1.0 as it has branches."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import msgspec

from cogsmith.client.progress import Plan
from cogsmith.client.recovery import Leg
from cogsmith.client.server import Server
from cogsmith.detokenize import Decode, Stopping
from cogsmith.lmtp import Allow, ExtendedGenerate, ExtendedScore, Generate, Score, bitset

_GENERATE_FEATURES = ("allow", "constraint", "stop", "min_tokens", "eos_ids", "seed", "n", "logprob_ids")
_MASK_BIAS = 100.0
"""What LMQL adds or subtracts to make a bias a mask: log-probabilities that far apart do not meet."""


def plan_generate(request: ExtendedGenerate, server: Server, decode: Decode | None = None) -> Plan:
    """Plan a generation. `decode` is needed to find stop texts where the server cannot.

    Raises UnsupportedByServer with all that the server cannot do.
    """
    used = _used(request, _GENERATE_FEATURES)
    if server.is_extended:
        server.require(used)
        return Plan([Leg(_with_cancel_key(request, server), tuple(range(request.n)))])
    server.require([name for name in used if name not in ("allow", "stop", "n")])
    operation = _lowered(request, server)
    branches = range(request.n)
    stops = (request.stop, request.min_tokens, decode, request.prompt)
    return Plan([Leg(operation, (index,)) for index in branches], [Stopping(*stops) for _ in branches if request.stop])


def plan_score(request: ExtendedScore, server: Server) -> Plan:
    """Plan a scoring, of each option as a branch. Raises UnsupportedByServer with all that the server cannot do."""
    used = _used(request, ("top_logprobs", "logprob_ids"))
    if server.is_extended:
        server.require([name for name in used if name == "logprob_ids"])
        return Plan([Leg(_with_cancel_key(request, server), tuple(range(len(request.options))))])
    server.require(used)
    return Plan(
        [
            Leg(Score(prompt=request.prompt, scored=option, model=request.model, stream_id=0), (index,))
            for index, option in enumerate(request.options)
        ]
    )


def _used(request: ExtendedGenerate | ExtendedScore, names: Sequence[str]) -> list[str]:
    """Which of the fields `names` are not as they are by themselves."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(request)}
    return [name for name in names if getattr(request, name) != defaults[name]]


def _with_cancel_key(request: ExtendedGenerate | ExtendedScore, server: Server) -> ExtendedGenerate | ExtendedScore:
    key = secrets.token_urlsafe(12) if server.can("cancel") else None
    return msgspec.structs.replace(request, cancel_key=key)


def _lowered(request: ExtendedGenerate, server: Server) -> Generate:
    """Return one branch of `request` as an operation of 1.0."""
    shared = {field.name: getattr(request, field.name) for field in msgspec.structs.fields(Generate)}
    operation = Generate(**shared)
    if request.allow is None:
        return operation
    mask = _mask(request.allow, request.logit_bias, server.vocab_size)
    return msgspec.structs.replace(operation, logit_bias=mask)


def _mask(allow: Allow, bias: Mapping[int, float], vocab_size: int | None) -> Mapping[int, float]:
    """Return a bias that lets only allowed ids come: the shorter of lifting these and pressing down the others."""
    size = vocab_size or (allow.ranges[-1][1] if allow.ranges else 6 * len(allow.bits or ""))
    bits = bitset(allow, size)
    allowed = [id_ for id_ in range(size) if bits[id_ // 8] >> id_ % 8 & 1]
    if vocab_size is None or 2 * len(allowed) <= vocab_size:
        return {**bias, **{id_: bias.get(id_, 0.0) + _MASK_BIAS for id_ in allowed}}
    others = set(range(vocab_size)).difference(allowed)
    return {**bias, **{id_: bias.get(id_, 0.0) - _MASK_BIAS for id_ in sorted(others)}}
