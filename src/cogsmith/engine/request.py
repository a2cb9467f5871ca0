"""What an engine is asked and what it answers: plain values, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cogsmith.engine.kv.prefix_tree import common_prefix

FinishReason = Literal["stop", "length"]

IMAGE_MASK = "cross_attention_mask"
"""transformers' name for which images each token of a text sees, where a model attends to them beside the text."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. The defaults change nothing: greedy, no penalty.

    `temperature` 0 takes the most likely token. `top_k` 0 and `top_p` 1.0 keep the whole vocabulary.
    `repetition_penalty` divides positive and multiplies negative logits of every id in prompt and continuation
    (Keskar et al. 2019, as in transformers); `presence_penalty` and `frequency_penalty` are subtracted once, and
    once per occurrence, for ids of the continuation (as in OpenAI's API). `seed` None draws one.

    With `as_torch` a seeded stream draws as transformers' `generate` does for it alone after `torch.manual_seed(seed)`:
    a number for each id of the head and token, which takes longer. For the default engine.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    as_torch: bool = False


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the whole continuation must be: the text of `kind`, or one of `choices`.

    A regular expression in Rust's syntax, matched from end to end; a JSON schema as JSON text; a grammar in the dialect
    of Lark that llguidance reads. An end token may come where the text is complete, and nothing else where nothing can
    follow.
    """

    kind: Literal["regex", "json_schema", "lark", "choice"]
    text: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Media:
    """What a model reads of a prompt beside its ids: pixels, and what belongs to them.

    `values` are arguments of the model's forward pass over a whole prompt, as the model's own processor makes them;
    only a row back-end looks at them. The prompt holds the image tokens that stand for them.
    """

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """What a model has computed of a text: its keys and values, which it need not compute again.

    `layers` maps a layer's number to its keys and its values, tensors `[heads, tokens, dim]`, of the first `num_tokens`
    of `tokens`; only a row back-end looks at them.
    """

    tokens: tuple[int, ...]
    num_tokens: int
    layers: Mapping[int, tuple[Any, Any]]

    def num_known(self, text: tuple[int, ...]) -> int:
        """Return of how many of the first tokens of `text` the keys and values are here."""
        return common_prefix(self.tokens[: self.num_tokens], text)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Continue `prompt` by up to `max_tokens` tokens.

    `bias` is added to the logits (id → value); ids beyond the model's head are ignored. Each token comes with the
    `top_logprobs` most likely alternatives (0 gives the sampled one alone), and with those of `logprob_ids`.

    `allow` is a bitset of the only ids that may be drawn, that of id i being bit i % 8 of byte i // 8; it is hard: the
    others have probability 0, and log-probabilities are normalised over those allowed. The first `min_tokens` tokens
    are no end tokens, which are excluded in the same way, unless nothing else is allowed.

    A `constraint` excludes in the same way what does not lead to a text that it allows. Tokens that it forces come with
    log-probability 0.

    `eos_ids` are the end tokens in place of the model's own, where they are given; none with an empty set. Without
    `use_cache` nothing is taken over that the default engine computed for other texts.

    `media` is what the prompt's image tokens stand for, where it has some. A `cache` stands for as much of the prompt
    as begins like its text; no other request is given anything of it.
    """

    prompt: tuple[int, ...]
    max_tokens: int = 32
    sampling: Sampling = Sampling()
    bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int = 1
    allow: bytes | None = None
    min_tokens: int = 0
    logprob_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    eos_ids: frozenset[int] | None = None
    use_cache: bool = True
    media: Media | None = None
    cache: Cache | None = None

    def ends(self, eos_ids: frozenset[int]) -> frozenset[int]:
        """Return the end tokens that count, where the model's own are `eos_ids`."""
        return eos_ids if self.eos_ids is None else self.eos_ids


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Give the log-probability of each token of `scored`, given `prompt` and the scored tokens before it.

    Each comes with the `top_logprobs` most likely alternatives, none for 0, and with those of `logprob_ids`.
    `media` is what the prompt's image tokens stand for, where it has some.
    """

    prompt: tuple[int, ...]
    scored: tuple[int, ...]
    top_logprobs: int = 0
    logprob_ids: tuple[int, ...] = ()
    media: Media | None = None


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """Give what the model computes of `prompt` and the tokens `following` it, all at once.

    That is the logits after each of the last `num_logits` tokens, and with `keeps_cache` the keys and values of all.
    `media` is what the prompt's image tokens stand for: no logits are given inside such a prompt. A `cache` stands for
    as much of the text as begins like its own, but for nothing whose logits are asked for.
    """

    prompt: tuple[int, ...]
    following: tuple[int, ...] = ()
    num_logits: int = 1
    keeps_cache: bool = False
    media: Media | None = None
    cache: Cache | None = None


MOST_VALUES = 2**24
"""Numbers in one answer of vectors or logits: 64 MiB."""

Pooling = Literal["mean", "cls", "last", "max", "none"]
"""How the vectors of a text's tokens become one; "none" leaves them as they are."""


@dataclass(frozen=True, slots=True)
class Padding:
    """Pads the texts of one request to the longest of them, on one `side`, with the id `token`; None: the model's own.

    What is `token` is masked wherever it stands, and positions count from the first id, padding or not: as
    curated-transformers encodes a padded batch.
    """

    side: Literal["left", "right"] = "right"
    token: int | None = None


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Give what the model makes of each of `inputs`, the ids of texts.

    `layers` is "last", the last hidden state; or numbers of layers, from 0, whose outputs are wanted instead, "all" of
    them. `embedding` adds the output of the embedding, which is what layer 0 reads. `pooling` and `normalize` (to
    length 1) apply to all of these; None is what the model was trained with. An answer of more than `max_values`
    numbers is refused.
    """

    inputs: tuple[tuple[int, ...], ...]
    layers: Literal["last", "all"] | tuple[int, ...] = "last"
    embedding: bool = False
    pooling: Pooling | None = None
    normalize: bool | None = None
    padding: Padding | None = None
    max_values: int = MOST_VALUES


Request = GenerateRequest | ScoreRequest
"""What is answered token by token."""

TextRequest = Request | ForwardRequest
"""What a model that continues text is asked."""

AnyRequest = TextRequest | EmbedRequest


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One token of a stream. Nothing follows a `finish_reason`.

    `top_logprobs` is None for a scored token that was to have none, `logprobs` where no `logprob_ids` were asked for;
    neither lists an id that a mask excludes.
    """

    token: int
    logprob: float
    top_logprobs: dict[int, float] | None = None
    finish_reason: FinishReason | None = None
    logprobs: dict[int, float] | None = None


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """The stream's end, because of `message`. Nothing follows."""

    message: str


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """What was asked of an EmbedRequest, all at once. Nothing follows.

    `outputs` holds, under "last", "embedding" or a layer's number, a float32 array for each text: [width] where it is
    pooled, else [tokens, width]. `inputs` are the ids as the model read them, padded where that was asked for.
    """

    outputs: Mapping[str | int, tuple[Any, ...]]
    inputs: tuple[tuple[int, ...], ...]
    pooling: Pooling
    normalize: bool
    padding_id: int | None = None


@dataclass(frozen=True, slots=True)
class ComputedEvent:
    """What was asked of a ForwardRequest. Nothing follows. `logits` is a float32 array `[num_logits, head_size]`."""

    logits: Any
    cache: Cache | None = None


Event = TokenEvent | FailedEvent
"""What a stream of tokens gives."""

AnyEvent = Event | EncodedEvent | ComputedEvent

Sink = Callable[[tuple[AnyEvent, ...]], None]
"""Takes the events of one step for one stream. Called on the engine's thread: it must not block. Raising ends it."""
