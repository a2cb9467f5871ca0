"""What a generation may be told. The defaults are LMTP's own: greedy, 32 tokens, the best token listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from cogsmith.lmtp import Allow, Constraint


class GenerateOptions(TypedDict, total=False):
    """Options of `generate`, `text` and `chat`; all may be left out."""

    max_tokens: int
    """Most tokens of a continuation; 32."""
    temperature: float
    """0, the default, takes the likeliest token."""
    top_p: float
    """Sample from the smallest set of tokens with this much probability; 1 is off."""
    top_k: int
    """Sample from this many best tokens; 0 is off."""
    repetition_penalty: float
    """Divides positive and multiplies negative logits of ids in prompt and continuation; 1 is off."""
    presence_penalty: float
    """Subtracted from the logits of ids in the continuation; 0 is off."""
    frequency_penalty: float
    """The same, times the number of occurrences."""
    logit_bias: Mapping[int, float]
    """Added to the logits, by token id."""
    allow: Allow | Iterable[int]
    """The only ids that may be sampled; `lmtp.pack_mask(ids)` for a mask that is used often."""
    constraint: Constraint | Mapping[str, Any]
    """What the continuation must be: one of `regex`, `json_schema` (object or text), `lark` and `choice` (texts)."""
    stop: str | Sequence[str | Sequence[int]]
    """Texts and sequences of ids that end a continuation. The token that completes one still comes."""
    min_tokens: int
    """Before so many tokens, no end token is sampled and no `stop` counts; 0."""
    eos_ids: Sequence[int]
    """The end tokens, in place of the model's own; none with an empty list."""
    seed: int
    """Makes draws repeatable."""
    n: int
    """How many continuations; 1. They are told apart by their tokens' `index`."""
    top_logprobs: int
    """How many of the best tokens are listed with each token; 1."""
    logprob_ids: Sequence[int]
    """Ids whose log-probabilities come with every token."""
    deadline: float
    """Seconds from the call, waiting included. Then DeadlineExceeded is raised, and what still runs is ended."""


class EmbedOptions(TypedDict, total=False):
    """Options of `embed`; all may be left out."""

    layers: Literal["last", "all"] | Sequence[int]
    """Whose outputs are wanted: the last hidden state, "last"; or layers by their numbers from 0."""
    embedding: bool
    """Whether the output of the embedding is wanted too."""
    pooling: Literal["mean", "cls", "last", "max", "none"]
    """How a text's vectors become one; as the model was trained. "none" gives hidden states."""
    normalize: bool
    """Whether vectors are brought to length 1; as the model was trained."""
    padding_side: Literal["left", "right"]
    """Pads the texts to the longest of them, which positions and so vectors may depend on."""
    padding_id: int
    """What pads them; the model's own."""
    truncate: bool
    """Whether a text that is too long is cut; it is an error."""
    deadline: float
    """Seconds from the call, waiting included."""


class ScoreOptions(TypedDict, total=False):
    """Options of `score`; all may be left out."""

    top_logprobs: int
    """How many of the best tokens are listed with each scored one; 0."""
    logprob_ids: Sequence[int]
    """Ids whose log-probabilities come with every token."""
    deadline: float
    """Seconds from the call, waiting included."""
