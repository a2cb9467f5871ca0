"""A request in vLLM's words. vLLM is left to end a stream and to choose nothing."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import GenerateRequest, Request, ScoreRequest
from cogsmith.engine.sequence import Sequence
from cogsmith.engine.vllm import answer_row, wire

_STEPS = 8
"""Tokens that each piece of a cut SCORE has at least: a piece reads up to a block of the cache's pages again."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is run as one of vLLM's requests. Its answers are to `request`, whose prompt it has."""

    request: Request
    params: SamplingParams


def seeded(request: GenerateRequest) -> GenerateRequest:
    """Give a request without a seed one: with tensor parallelism several processes draw, and must draw the same.

    vLLM may draw a token anew, for which torch's generators are not made.
    """
    seed = random.getrandbits(63) if request.sampling.seed is None else request.sampling.seed
    return replace(request, sampling=replace(request.sampling, seed=seed, as_torch=False))


def whole(request: GenerateRequest, info: EngineInfo) -> Piece:
    """Return a GENERATE as one piece."""
    return _piece(seeded(request), info)


def next_token(request: GenerateRequest, sequence: Sequence, num_drawn: int, info: EngineInfo) -> Piece:
    """Return the piece that draws the next token of a constrained `sequence`, whose request, seeded, is `request`.

    Its grammar is followed in this process, and may have forced some of the tokens: `num_drawn` were drawn.
    """
    allow = sequence.constraint.allowed().tobytes()
    step = replace(request, prompt=tuple(sequence.tokens), max_tokens=1, allow=allow, constraint=None)
    return _piece(step, info, wire.Progress(sequence.num_generated, num_drawn))


def side_by_side(request: ScoreRequest, info: EngineInfo, most: int) -> list[Piece]:
    """Cut a SCORE into up to `most` pieces, each after all that comes before it, so that it takes fewer steps.

    Its tokens are decoded, and forced: that reads the prefix cache, which vLLM's `prompt_logprobs` do not.
    """
    # Nothing comes before the first token of an empty prompt, whose score is 0.0 by definition and not asked here.
    text, start = request.prompt + request.scored, max(1, len(request.prompt))
    count = max(1, min(most, (len(text) - start) // _STEPS))
    bounds = [start + (len(text) - start) * i // count for i in range(count + 1)]
    return [
        _piece(replace(request, prompt=text[:begin], scored=text[begin:end]), info)
        for begin, end in itertools.pairwise(bounds)
        if begin < end
    ]


def _piece(request: Request, info: EngineInfo, progress: wire.Progress = wire.NO_PROGRESS) -> Piece:
    ends = request.ends(info.eos_ids) if isinstance(request, GenerateRequest) else ()
    params = SamplingParams(
        max_tokens=request.max_tokens if isinstance(request, GenerateRequest) else len(request.scored),
        temperature=0.0,
        ignore_eos=True,
        stop_token_ids=sorted(token for token in ends if token < info.head_size),
        logprobs=answer_row.width(request, info.head_size),
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={wire.KEY: wire.encode(request, info.head_size, progress)},
        skip_clone=True,
    )
    return Piece(request, params)
