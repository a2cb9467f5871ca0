"""What an engine takes and what it refuses, before any work is done. Plain Python."""

from __future__ import annotations

from collections.abc import Sequence

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import (
    MOST_VALUES,
    AnyRequest,
    EmbedRequest,
    ForwardRequest,
    GenerateRequest,
    Request,
    ScoreRequest,
    TextRequest,
)
from cogsmith.errors import RequestError
from cogsmith.manifest import CAUSAL_LM, DECODER, Limits

ENDING = "the engine is shutting down"
"""Why a request is refused, or ends early, once an engine was closed."""

_MOST_LISTED = 2**18
"""Alternatives that one SCORE may have listed in all: every token of the largest vocabularies, at one place."""


def for_tokens(request: AnyRequest) -> TextRequest:
    """Return a request that a model which continues text can answer. Raises RequestError for one that asks vectors."""
    if isinstance(request, EmbedRequest):
        raise RequestError(
            f"this model continues text (task {CAUSAL_LM}), and gives no vectors",
            fix=f'serve it with task = "{DECODER}", or an encoder',
        )
    return request


def streamed(request: TextRequest) -> Request:
    """Return a request that is answered by tokens alone, for an engine that gives no others.

    Raises RequestError for one that asks for more, or comes with a cache.
    """
    if isinstance(request, ForwardRequest) or (isinstance(request, GenerateRequest) and request.cache):
        raise RequestError(
            "vLLM gives out no logits and no caches, and takes none",
            fix='leave them out, or package the model with engine = "transformers"',
        )
    return request


def admit(request: TextRequest, info: EngineInfo, limits: Limits) -> None:
    """Check that `request` can run. Raises RequestError with the value and the fix."""
    check_ids(request.prompt, "prompt", info)
    if isinstance(request, ForwardRequest):
        _admit_forward(request, info)
        return
    check_ids(request.logprob_ids, "logprob_ids", info)
    if isinstance(request, ScoreRequest):
        _admit_score(request, info)
    else:
        _admit_generate(request, info, limits)


def check_room(num_present: int, limits: Limits) -> None:
    """Check that one more may come where `num_present` run or wait. Raises RequestError where the queue is full."""
    # One that has just come goes to a free row first: requests wait only once there are more than rows.
    if num_present >= limits.max_batch_size + limits.max_queue:
        raise RequestError(f"the queue is full ({limits.max_queue} operations wait)", fix="try again later")


def _admit_generate(request: GenerateRequest, info: EngineInfo, limits: Limits) -> None:
    if not request.prompt:
        begin = f"the BOS id {info.bos_id}" if info.bos_id is not None else "a token"
        raise RequestError("the prompt is empty: there is nothing to continue", fix=f"send {begin} at least")
    if len(request.prompt) >= info.max_context:
        raise RequestError(
            f"the prompt has {len(request.prompt)} tokens and leaves no room in a context of {info.max_context}",
            fix="shorten the prompt",
        )
    if limits.max_tokens is not None and request.max_tokens > limits.max_tokens:
        raise RequestError(
            f"max_tokens is {request.max_tokens}, and this server grants {limits.max_tokens}",
            fix=f"ask for {limits.max_tokens} at most",
        )
    check_ids(tuple(request.eos_ids or ()), "eos_ids", info)
    _check_possible(request, info)


def _check_possible(request: GenerateRequest, info: EngineInfo) -> None:
    if request.min_tokens > request.max_tokens:
        raise RequestError(
            f"min_tokens is {request.min_tokens}, more than max_tokens, {request.max_tokens}",
            fix="ask for as many tokens at least",
        )
    if request.constraint is not None and request.eos_ids is not None:
        raise RequestError(
            "a constraint ends with the model's own end tokens, and others are given",
            fix="leave out the constraint, or eos_token_id",
        )
    if request.allow is not None and not _allows_any(request.allow, info.vocab_size):
        raise RequestError(
            f"allow holds no id of this model's vocabulary, whose ids are 0 to {info.vocab_size - 1}",
            fix="use the tokenizer of this model",
        )


def _admit_score(request: ScoreRequest, info: EngineInfo) -> None:
    if not request.scored:
        raise RequestError("scored is empty: there is nothing to score", fix="send one token at least")
    check_ids(request.scored, "scored", info)
    total = len(request.prompt) + len(request.scored)
    if total > info.max_context:
        raise RequestError(
            f"prompt and scored have {total} tokens together, more than the context of {info.max_context}",
            fix="shorten the prompt",
        )
    listed = min(request.top_logprobs, info.vocab_size) * len(request.scored)
    if listed > _MOST_LISTED:
        raise RequestError(
            f"top_logprobs for {len(request.scored)} scored tokens makes {listed} entries, more than {_MOST_LISTED}",
            fix="ask for fewer alternatives",
        )


def _admit_forward(request: ForwardRequest, info: EngineInfo) -> None:
    check_ids(request.following, "following", info)
    total = len(request.prompt) + len(request.following)
    if total > info.max_context:
        raise RequestError(
            f"the text has {total} tokens, more than the context of {info.max_context}", fix="shorten the prompt"
        )
    # Images are read with the whole prompt, in one pass that ends with the first logits.
    most = total if request.media is None else len(request.following) + 1
    if not 1 <= request.num_logits <= most:
        raise RequestError(
            f"the logits after {request.num_logits} tokens are asked for, and this text has {most} such tokens",
            fix="ask for the last ones, behind the images" if request.media else "ask for fewer",
        )
    if (numbers := request.num_logits * info.head_size) > MOST_VALUES:
        raise RequestError(
            f"logits after {request.num_logits} tokens are {numbers} numbers, more than {MOST_VALUES}",
            fix=f"ask for {MOST_VALUES // info.head_size} tokens at most",
        )


def _allows_any(allow: bytes, vocab_size: int) -> bool:
    """Tell whether a bitset holds an id below `vocab_size`."""
    return int.from_bytes(allow, "little") & ((1 << vocab_size) - 1) != 0


def check_ids(ids: Sequence[int], field: str, info: EngineInfo) -> None:
    """Check that all `ids` are the model's. Raises RequestError naming the first that is none."""
    if ids and not (min(ids) >= 0 and max(ids) < info.head_size):
        index = next(i for i, token in enumerate(ids) if not 0 <= token < info.head_size)
        raise RequestError(
            f"{field}[{index}] is {ids[index]}, and this model's ids are 0 to {info.head_size - 1}",
            fix="use the tokenizer of this model",
        )
