"""What an operation asks of the engine, in the engine's words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cogsmith import lmtp
from cogsmith.engine.request import (
    AnyRequest,
    Constraint,
    EmbedRequest,
    GenerateRequest,
    Request,
    Sampling,
    ScoreRequest,
)
from cogsmith.lmtp import constraints

if TYPE_CHECKING:
    from cogsmith.engine.images import Pictures

Bitset = Callable[[lmtp.Allow], bytes]
"""Makes the bitset of a mask, over the model's ids."""


def plain_request(operation: lmtp.Generate | lmtp.Score) -> Request:
    """The request of an operation of 1.0."""
    if isinstance(operation, lmtp.Score):
        return ScoreRequest(operation.prompt, operation.scored)
    return GenerateRequest(
        operation.prompt,
        operation.max_tokens,
        _sampling(operation, None),
        operation.logit_bias,
        operation.top_logprobs,
    )


def branch_requests(operation: lmtp.ExtendedGenerate | lmtp.ExtendedScore, bitset: Bitset) -> list[Request]:
    """The requests of an operation of 1.1, one for each branch."""
    if isinstance(operation, lmtp.ExtendedScore):
        return [
            ScoreRequest(operation.prompt, option, operation.top_logprobs, operation.logprob_ids)
            for option in operation.options
        ]
    allow = None if operation.allow is None else bitset(operation.allow)
    constraint = None if operation.constraint is None else _constraint(operation.constraint)
    return [
        GenerateRequest(
            operation.prompt,
            operation.max_tokens,
            _sampling(operation, None if operation.seed is None else operation.seed + index),
            operation.logit_bias,
            operation.top_logprobs,
            allow,
            operation.min_tokens,
            operation.logprob_ids,
            constraint,
            None if operation.eos_ids is None else frozenset(operation.eos_ids),
        )
        for index in range(operation.n)
    ]


def with_images(request: Request, pictures: Pictures | None) -> Request:
    """Return a request whose prompt's placeholders are the tokens of `pictures`; None for a model that reads no images.

    A prompt without image tokens stays a text. Raises RequestError where placeholders and images do not match.
    """
    if pictures is None:
        return request
    if isinstance(request, ScoreRequest):
        pictures.require_none(request.scored, "scored")
    if not pictures.are_in(request.prompt):
        return request
    prompt, media = pictures.expand(request.prompt)
    return replace(request, prompt=prompt, media=media)


def num_read(request: AnyRequest) -> int:
    """How many tokens the model reads for a request."""
    if isinstance(request, EmbedRequest):
        return sum(map(len, request.inputs))
    return len(request.prompt) + (len(request.scored) if isinstance(request, ScoreRequest) else 0)


def _constraint(given: lmtp.Constraint) -> Constraint:
    kind = constraints.kind_of(given)
    if given.choice is not None:
        return Constraint("choice", choices=given.choice)
    return Constraint(kind, constraints.text_of(given))


def _sampling(operation: lmtp.Generate, seed: int | None) -> Sampling:
    return Sampling(
        temperature=operation.temperature,
        top_p=operation.top_p,
        top_k=operation.top_k,
        repetition_penalty=operation.repetition_penalty,
        presence_penalty=operation.presence_penalty,
        frequency_penalty=operation.frequency_penalty,
        seed=seed,
    )
