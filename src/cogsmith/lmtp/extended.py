"""The messages that LMTP 1.1 adds to 1.0. An operation that says `"lmtp": "1.1"` is one of these, or of `embedding`.

    client   ExtendedGenerate  GENERATE    as in 1.0, and: allow, constraint, stop, min_tokens, seed, n, logprob_ids, …
             ExtendedScore     SCORE       several options after one prompt, with alternatives
             Cancel            CANCEL      end streams of this or another prediction
             GetTokenizer      TOKENIZER   the served model's tokenizer, so that a client needs no other source of it
    server   ExtendedToken     TOKEN       a token of one branch of a stream
             End               END         the end of a branch, or of a whole stream: why, how much, how long
             Cancelled         MSG         the answer to CANCEL
             TokenizerFiles    MSG         the answer to TOKENIZER

A stream has branches: the `n` continuations of a GENERATE, the options of a SCORE. Each is numbered by `index` from 0
and ends with one `End`. These types hold prompts and masks in full; how a batch says a thing once and names it
afterwards is `handles`' matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from cogsmith.lmtp.messages import (
    MAX_INTEGER,
    Count,
    Generate,
    Message,
    ModelName,
    Number,
    PerToken,
    Positive,
    StreamId,
    TokenId,
    TokenIds,
)

VERSION: Literal["1.1"] = "1.1"

Version = Annotated[Literal["1.1"], Meta(description='"1.1"')]
"""What makes an operation one of 1.1."""

Range = tuple[TokenId, TokenId]
"""Token ids from the first number up to, not including, the second."""

Seed = Annotated[int, Meta(ge=0, le=MAX_INTEGER, description="a whole number from 0")]

CancelKey = Annotated[str, Meta(min_length=1, max_length=200, description="a string of 1 to 200 characters")]
"""Names streams across predictions, for CANCEL. Whoever knows it may cancel them: choose it at random."""

Stops = Annotated[
    tuple[Annotated[str, Meta(min_length=1)] | Annotated[TokenIds, Meta(min_length=1)], ...],
    Meta(max_length=64, description="a list of at most 64 texts and lists of token ids, none of them empty"),
]
"""Texts and sequences of ids that end a branch."""

Options = Annotated[
    tuple[Annotated[TokenIds, Meta(min_length=1)], ...],
    Meta(min_length=1, description="a list of at least one list of at least one token id"),
]

LogprobIds = Annotated[TokenIds, Meta(max_length=1024, description="a list of at most 1024 token ids")]
"""Ids whose log-probabilities come with every token, likely or not."""

EosIds = Annotated[
    Annotated[TokenIds, Meta(max_length=64)] | None, Meta(description="a list of at most 64 token ids, or null")
]
"""Ids that end a text."""

ExtendedFinishReason = Annotated[
    Literal["stop", "length", "stop_sequence"] | None,
    Meta(description='null, "stop", "length" or "stop_sequence"'),
]

EndReason = Literal["stop", "length", "stop_sequence", "cancelled", "deadline", "interrupted", "error"]

CONSTRAINT_FORMS = '{"regex": text}, {"json_schema": schema}, {"lark": text} or {"choice": [text, ...]}'


class Allow(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The only ids that may be sampled, in one of two forms: `masks` makes and reads them.

    A mask is hard: every other id has probability 0, and log-probabilities are normalised over those allowed.
    """

    ranges: tuple[Range, ...] | None = None
    bits: str | None = None
    """A bitset in base64: the id `i` is allowed where bit `i % 8` (of value `1 << i % 8`) of byte `i // 8` is set."""


class Constraint(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the whole continuation must be, in one of four forms: `constraints` checks it."""

    regex: str | None = None
    """A regular expression in Rust's syntax, matched from end to end."""
    json_schema: dict[str, Any] | str | None = None
    """A JSON schema, or its JSON text."""
    lark: str | None = None
    """A grammar in llguidance's dialect of Lark."""
    choice: tuple[str, ...] | None = None
    """The texts that it may be."""


class ExtendedGenerate(Generate, frozen=True, kw_only=True):
    """Continue `prompt` in `n` branches of up to `max_tokens` tokens each."""

    always_sent: ClassVar[tuple[str, ...]] = ("lmtp", *Generate.always_sent)

    lmtp: Version = VERSION
    allow: Annotated[Allow | None, Meta(description='{"ranges": [[from, to], ...]} or {"bits": base64}')] = None
    """Applies at every step, before the bias."""
    constraint: Annotated[Constraint | None, Meta(description=CONSTRAINT_FORMS)] = None
    """Excludes what does not lead to such a text, as `allow` does; what it forces comes with log-probability 0."""
    stop: Stops = ()
    """A branch ends with the token that completes one of these in its continuation; that token is still sent."""
    min_tokens: Count = 0
    """Before so many tokens, no end token is sampled and no `stop` counts."""
    eos_ids: EosIds = None
    """The end tokens, in place of the model's own; none with an empty list."""
    seed: Seed | None = None
    """Makes the draws repeatable; branch i draws with `seed + i`."""
    n: Annotated[int, Meta(ge=1, le=128, description="a whole number from 1 to 128")] = 1
    logprob_ids: LogprobIds = ()
    """Ids whose log-probabilities come with every token, likely or not."""
    deadline_ms: Positive | None = None
    """Milliseconds from the server's receipt; branches that run then end with the reason "deadline"."""
    cancel_key: CancelKey | None = None


class ExtendedScore(Message, frozen=True, kw_only=True):
    """Give the log-probability of each token of each option, every option directly following `prompt`."""

    verb: ClassVar[str] = "SCORE"
    always_sent: ClassVar[tuple[str, ...]] = ("lmtp",)

    lmtp: Version = VERSION
    prompt: TokenIds
    options: Options
    top_logprobs: Count = 0
    """How many of the best tokens are listed beside each scored one; 0 lists none."""
    logprob_ids: LogprobIds = ()
    deadline_ms: Positive | None = None
    cancel_key: CancelKey | None = None
    model: ModelName = None
    stream_id: StreamId


class Cancel(Message, frozen=True, kw_only=True):
    """End every stream whose operation had this `cancel_key`, in whatever prediction of the same server."""

    verb: ClassVar[str] = "CANCEL"
    always_sent: ClassVar[tuple[str, ...]] = ("lmtp",)

    lmtp: Version = VERSION
    cancel_key: CancelKey
    stream_id: StreamId


class GetTokenizer(Message, frozen=True, kw_only=True):
    """Ask for the model's tokenizer."""

    verb: ClassVar[str] = "TOKENIZER"
    always_sent: ClassVar[tuple[str, ...]] = ("lmtp",)

    lmtp: Version = VERSION
    stream_id: StreamId


class ExtendedToken(Message, frozen=True, kw_only=True):
    """One token of branch `index`. `top_logprobs` and `logprobs` are there where they were asked for."""

    verb: ClassVar[str] = "TOKEN"
    always_sent: ClassVar[tuple[str, ...]] = ("index",)

    token: TokenId
    stream_id: StreamId
    index: Count
    logprob: Number
    finish_reason: ExtendedFinishReason
    top_logprobs: Annotated[PerToken | None, Meta(description="an object of numbers by token id")] = None
    logprobs: Annotated[PerToken | None, Meta(description="an object of numbers by token id")] = None
    """Of `logprob_ids`. An id that a mask excludes is absent: its probability is 0."""


class Usage(msgspec.Struct, frozen=True):
    """What a branch took. A prompt that several branches share counts for each."""

    prompt_tokens: int
    tokens: int
    """Tokens sent: generated or scored."""


class Timing(msgspec.Struct, frozen=True):
    """Milliseconds since the server took the operation."""

    first_token_ms: float | None
    total_ms: float


class End(Message, frozen=True, kw_only=True):
    """The end of branch `index`, or with `index` None of every branch that has not ended."""

    verb: ClassVar[str] = "END"

    stream_id: StreamId
    index: Annotated[Count | None, Meta(description="a whole number from 0, or null")] = None
    finish_reason: Annotated[EndReason, Meta(description="a reason of LMTP 1.1")]
    stop: Annotated[str | TokenIds | None, Meta(description="a text or a list of token ids")] = None
    """The entry of the request's `stop` that ended it."""
    error: Annotated[str | None, Meta(description="a string")] = None
    """Why, where the reason is "interrupted" or "error"."""
    usage: Annotated[Usage | None, Meta(description="an object")] = None
    timing: Annotated[Timing | None, Meta(description="an object")] = None


class Cancelled(Message, frozen=True, kw_only=True):
    """The answer to CANCEL: how many running branches it ended."""

    verb: ClassVar[str] = "MSG"
    always_sent: ClassVar[tuple[str, ...]] = ("cancelled",)

    stream_id: StreamId
    cancelled: Count


class TokenizerFiles(Message, frozen=True, kw_only=True):
    """The answer to TOKENIZER: `tokenizer.json`, compressed with gzip, in base64, and what belongs to it."""

    verb: ClassVar[str] = "MSG"

    stream_id: StreamId
    tokenizer: Annotated[str, Meta(description="gzip in base64")]
    special: Annotated[Mapping[str, Any], Meta(description="an object")]
    """As in tokenizer_config.json: `bos_token`, `eos_token`, `chat_template`, …; values are strings or null."""


def tokenizer_digest(tokenizer: str, special: Mapping[str, Any]) -> str:
    """Hash the two fields of a `TokenizerFiles`: what MODEL_INFO calls `tokenizer_files`."""
    text = json.dumps([tokenizer, special], sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
