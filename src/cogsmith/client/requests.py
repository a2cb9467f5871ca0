"""A caller's arguments -> the operation they mean. Every value that has no meaning is named at once, before anything
is sent.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex, TypeVar

import msgspec

from cogsmith.client.options import EmbedOptions, GenerateOptions, ScoreOptions
from cogsmith.errors import InternalError, RequestError, RequestRejected
from cogsmith.lmtp import Allow, Constraint, Embed, ExtendedGenerate, ExtendedScore, pack_mask
from cogsmith.lmtp.extended import CONSTRAINT_FORMS
from cogsmith.lmtp.payload import dump_payload, parse_payload

P = TypeVar("P")
R = TypeVar("R", ExtendedGenerate, ExtendedScore, Embed)

# Fields of operations that are the client's own to fill.
_OURS = {"prompt", "options", "texts", "inputs", "model", "stream_id", "lmtp", "cancel_key", "deadline_ms"}

_TEXTS_AT_ONCE = 64
"""Of one EMBED: an answer comes whole, and is to stay of moderate size."""


def generate_request(prompt: Sequence[int], options: GenerateOptions, model: str | None) -> ExtendedGenerate:
    """Return the operation that `options` ask for. Raises RequestRejected."""
    fields: dict[str, Any] = _fields(ExtendedGenerate, options)
    if "stop" in fields:
        fields["stop"] = _stops(fields["stop"])
    if fields.get("eos_ids") is not None:
        fields["eos_ids"] = _ids("eos_ids", fields["eos_ids"])
    if "allow" in fields:
        fields["allow"] = _mask(fields["allow"])
    if "constraint" in fields:
        fields["constraint"] = _constraint(fields["constraint"])
    if "logit_bias" in fields:
        fields["logit_bias"] = _bias(fields["logit_bias"])
    return _checked(ExtendedGenerate(prompt=_ids("prompt", prompt), model=model, stream_id=0, **fields))


def listed_options(given: Iterable[P], name: str = "options") -> list[P]:
    """Return options to score. Raises RequestRejected for a single one, which would be taken for its characters."""
    if isinstance(given, str | bytes):
        raise RequestRejected(f"{name} is the text {given!r}", fix="give a list of texts")
    try:
        return list(given)
    except TypeError as error:
        raise RequestRejected(f"{name} is no list: {error}", fix="give a list of texts or of token ids") from error


def score_request(
    prompt: Sequence[int], scored: Sequence[Sequence[int]], options: ScoreOptions, model: str | None
) -> ExtendedScore:
    """Return the operation that scores each of `scored` after `prompt`. Raises RequestRejected."""
    fields = _fields(ExtendedScore, options)
    listed = tuple(_ids(f"options[{position}]", option) for position, option in enumerate(scored))
    return _checked(ExtendedScore(prompt=_ids("prompt", prompt), options=listed, model=model, stream_id=0, **fields))


def embed_requests(texts: Iterable[str | Sequence[int]], options: EmbedOptions, model: str | None) -> list[Embed]:
    """Return the operations that turn `texts`, or ids, into vectors: one where they are padded together, else groups.

    Raises RequestRejected, also for no text and for texts and ids together.
    """
    listed = listed_options(texts, "texts")
    if not listed:
        raise RequestRejected("texts is empty: there is nothing to encode", fix="give one text at least")
    are_texts = [isinstance(one, str) for one in listed]
    if any(are_texts) and not all(are_texts):
        raise RequestRejected("texts holds texts and token ids", fix="give two calls, one of each kind")
    fields = _fields(Embed, options)
    if not isinstance(fields.get("layers", "last"), str):
        fields["layers"] = _ids("layers", fields["layers"])
    given: list[Any] = listed
    if not are_texts[0]:
        given = [_ids(f"texts[{place}]", ids) for place, ids in enumerate(given)]
    size = len(given) if "padding_side" in fields or "padding_id" in fields else _TEXTS_AT_ONCE
    groups = [tuple(given[start : start + size]) for start in range(0, len(given), size)]
    name = "texts" if are_texts[0] else "inputs"
    each: list[dict[str, Any]] = [{**fields, name: group} for group in groups]
    return [_checked(Embed(model=model, stream_id=0, **one)) for one in each]


def check_deadline(seconds: float | None) -> None:
    """Raises RequestRejected for a deadline that is over before it begins, or is no time at all."""
    if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
        raise RequestRejected(f"deadline is {seconds!r}", fix="give seconds, more than 0; leave it out for no limit")


def _fields(kind: type[R], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are fields of the operation. Raises RequestRejected for names that are none."""
    known = {field.name for field in msgspec.structs.fields(kind)} - _OURS
    fields = {name: value for name, value in options.items() if name != "deadline"}
    if unknown := sorted(fields.keys() - known):
        raise RequestRejected(
            f"there is no option {', '.join(unknown)}", fix=f"give some of {', '.join(sorted(known | {'deadline'}))}"
        )
    if odd := [f"{name} is {value}" for name, value in fields.items() if _is_infinite(value)]:
        raise RequestRejected("; ".join(odd), fix="give finite numbers")
    if "logprob_ids" in fields:
        fields["logprob_ids"] = _ids("logprob_ids", fields["logprob_ids"])
    return fields


def _checked(request: R) -> R:
    """Return `request` if a server would take it, by the protocol's own rules. Raises RequestRejected if not."""
    try:
        parsed = parse_payload(type(request), dump_payload(request).encode())
    except InternalError as error:
        raise RequestRejected(error.message, fix="give finite numbers, texts and lists") from error
    if parsed.faults:
        raise RequestRejected("; ".join(parsed.faults))
    return request


def _stops(given: str | Sequence[str | Sequence[int]]) -> tuple[str | tuple[int, ...], ...]:
    entries = [given] if isinstance(given, str) else given
    if not isinstance(entries, Iterable):
        raise RequestRejected(f"stop is {given!r}", fix="give a text or a list of texts and lists of token ids")
    return tuple(entry if isinstance(entry, str) else _ids("stop", entry) for entry in entries)


def _mask(given: Allow | Iterable[int]) -> Allow:
    try:
        return given if isinstance(given, Allow) else pack_mask(_ids("allow", given))
    except RequestError as error:
        raise RequestRejected(error.message, fix=error.fix) from error


def _constraint(given: Constraint | Mapping[str, Any]) -> Constraint:
    try:
        return given if isinstance(given, Constraint) else msgspec.convert(given, Constraint)
    except msgspec.ValidationError as error:
        raise RequestRejected(f"constraint is {given!r:.80}: {error}", fix=f"give {CONSTRAINT_FORMS}") from error


def _bias(given: Mapping[int, float]) -> Mapping[int, float]:
    try:
        bias = {operator.index(id_): float(number) for id_, number in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise RequestRejected(f"logit_bias holds what is no number by token id: {error}") from error
    if odd := [id_ for id_, number in bias.items() if _is_infinite(number)]:
        raise RequestRejected(f"logit_bias[{odd[0]}] is {bias[odd[0]]}", fix="give finite numbers, or use `allow`")
    return bias


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _ids(name: str, given: Iterable[SupportsIndex]) -> tuple[int, ...]:
    """Return token ids as plain integers, whatever library's they were."""
    try:
        return tuple(map(operator.index, given))
    except TypeError as error:
        raise RequestRejected(f"{name} holds what is no token id: {error}", fix="give whole numbers") from error
