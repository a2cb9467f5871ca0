"""The messages of LMTP 1.0: one frozen type per message, fields named as on the wire.

    client   Generate    GENERATE     continue a prompt
             Score       SCORE        log-probabilities of a given continuation
             ModelInfo   MODEL_INFO   what is being served
    server   Token       TOKEN        one token of a stream
             TokenError  TOKEN        the end of one stream, with the reason
             Info        MSG          the answer to MODEL_INFO
             MessageError MSG         a failure that belongs to no token stream

A client's types are called after their verbs. A server's verbs each have two shapes, so its types say which.
The annotations below are the one place that says which values are legal: `payload` reads them, and quotes their
descriptions to the peer. Building a message in Python checks nothing; what comes from a peer is always checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

MAX_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader takes for the same number (RFC 8259, section 6)."""

MIN_INTEGER = -MAX_INTEGER
"""Smallest such integer."""

TOKENS_BEFORE_COMMITTED = 4
"""With so many tokens LMQL 0.7.3 begins to act on a stream, and cannot be told of an error any more."""

StreamId = Annotated[int, Meta(ge=MIN_INTEGER, le=MAX_INTEGER, description="a whole number of any sign")]
"""The client's own name for one stream of a batch. Echoed on every answer."""

TokenId = Annotated[int, Meta(ge=0, le=MAX_INTEGER, description="a token id: a whole number from 0")]
"""A row of a vocabulary. Ids past the end of the model's are legal here."""

Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER, description="a whole number from 0")]
"""A number of things; none is fine."""

Positive = Annotated[int, Meta(ge=1, le=MAX_INTEGER, description="a whole number from 1")]
"""A number of things, at least one."""

TopK = Annotated[int, Meta(ge=-1, le=MAX_INTEGER, description="a whole number from 1, or 0 for off")]
"""How many of the best tokens may be sampled; 0 is off. The -1 that some clients send for "off" is read as 0."""

Number = Annotated[float, Meta(description="a finite number")]
"""A double; JSON has no infinity and no NaN."""

TokenIds = Annotated[tuple[TokenId, ...], Meta(description="a list of token ids")]
"""A text as the client's tokenizer gives it; may be empty."""

PerToken = Annotated[
    Mapping[TokenId, Number],
    Meta(description='an object of numbers by token id, such as {"42": 1.5}'),
]
"""Numbers by token id. JSON spells the ids as strings, in plain decimal."""

Text = Annotated[str, Meta(description="a string")]
"""Any text."""

ModelName = Annotated[str | None, Meta(description="a string")]
"""Ignored by a server, which has one model."""

FinishReason = Annotated[Literal["stop", "length"] | None, Meta(description='null, "stop" or "length"')]
"""None while a stream goes on; then an end token ("stop"), or no more tokens or room ("length")."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all messages have in common."""

    verb: ClassVar[str]
    """First word of the line."""
    always_sent: ClassVar[tuple[str, ...]] = ()
    """Fields that are spelled out even at their defaults, as the reference client does."""


class Generate(Message, frozen=True, kw_only=True):
    """Continue `prompt` by up to `max_tokens` tokens."""

    verb: ClassVar[str] = "GENERATE"
    always_sent: ClassVar[tuple[str, ...]] = ("max_tokens", "temperature", "top_logprobs")

    max_tokens: Positive = 32
    temperature: Annotated[float, Meta(ge=0, description="a number from 0")] = 0.0
    """0 is greedy."""
    logit_bias: PerToken = msgspec.field(default_factory=dict)
    """Added to the logits at every step; an id outside the vocabulary has no effect."""
    top_logprobs: Count = 1
    """How many of the best tokens are listed with each token."""
    top_p: Annotated[float, Meta(gt=0, le=1, description="a number above 0 and at most 1")] = 1.0
    top_k: TopK = 0
    repetition_penalty: Annotated[float, Meta(gt=0, description="a number above 0")] = 1.0
    presence_penalty: Number = 0.0
    frequency_penalty: Number = 0.0
    model: ModelName = None
    prompt: TokenIds
    stream_id: StreamId


class Score(Message, frozen=True, kw_only=True):
    """Give the log-probability of each token of `scored`, following `prompt`."""

    verb: ClassVar[str] = "SCORE"

    model: ModelName = None
    prompt: TokenIds
    scored: Annotated[TokenIds, Meta(min_length=1, description="a list of at least one token id")]
    stream_id: StreamId


class ModelInfo(Message, frozen=True, kw_only=True):
    """Ask what is being served. `data` may hold any JSON; 1.0 gives it no meaning."""

    verb: ClassVar[str] = "MODEL_INFO"

    model: ModelName = None
    stream_id: StreamId
    data: Annotated[Any, Meta(description="JSON of moderate depth and size")] = None


class Token(Message, frozen=True, kw_only=True):
    """One token of a stream. Answers to GENERATE always have `top_logprobs`, answers to SCORE never."""

    verb: ClassVar[str] = "TOKEN"

    token: TokenId
    stream_id: StreamId
    logprob: Number
    """Natural logarithm, finite."""
    finish_reason: FinishReason
    top_logprobs: Annotated[PerToken | None, Meta(description="an object of numbers by token id")] = None


class TokenError(Message, frozen=True, kw_only=True):
    """The end of one stream, for the reason in `error`."""

    verb: ClassVar[str] = "TOKEN"

    stream_id: StreamId
    error: Text


class Info(Message, frozen=True, kw_only=True):
    """The answer to MODEL_INFO."""

    verb: ClassVar[str] = "MSG"

    stream_id: StreamId
    model_info: Annotated[dict[str, Any], Meta(description="an object")]


class MessageError(Message, frozen=True, kw_only=True):
    """A failed MODEL_INFO, or, with `stream_id` None, a failure that belongs to no stream."""

    verb: ClassVar[str] = "MSG"

    stream_id: Annotated[StreamId | None, Meta(description="a whole number or null")]
    error: Text


Operation = Generate | Score | ModelInfo
"""What a client sends."""

Reply = Token | TokenError | Info | MessageError
"""What a server sends."""

OPERATIONS: Mapping[str, type[Operation]] = {
    Generate.verb: Generate,
    Score.verb: Score,
    ModelInfo.verb: ModelInfo,
}
"""A client's types by verb."""
