"""One request on its way through the engine: the tokens so far and what is still to compute."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from cogsmith.engine.kv.memory import Lease
from cogsmith.engine.request import (
    AnyEvent,
    Cache,
    FinishReason,
    ForwardRequest,
    GenerateRequest,
    ScoreRequest,
    Sink,
    TextRequest,
    TokenEvent,
)

_log = logging.getLogger("cogsmith.engine")
_rows = itertools.count()


@dataclass(frozen=True, slots=True)
class Donor:
    """A running sequence that computes the first `num_common` tokens of one that waits."""

    sequence: Sequence
    num_common: int


@dataclass(eq=False, slots=True)
class Sequence:
    """A request with its progress, and the `Handle` of it. Only the engine's thread touches it, but for `cancel`.

    `tokens` holds the prompt and what follows it; the first `num_computed` of them are in the KV cache, in the
    pages of `lease`, which it has while it runs. `row` is the row back-end's name for it. `rules` are the request's
    bias and masks in the form that the sampler wants, `constraint` says which ids may come next.
    """

    request: TextRequest
    sink: Sink
    tokens: list[int]
    rules: Any = None
    constraint: Any = None
    client: Hashable = None
    row: int = field(default_factory=_rows.__next__)
    lease: Lease | None = None
    num_answered: int = 0
    """Tokens whose scores the client has been told of, or whose logits it will be given."""
    logits: list[Any] = field(default_factory=list)
    """Those that a ForwardRequest has got so far, on the host."""
    num_cached: int = 0
    """The first tokens whose keys and values came with the request."""
    donor: Donor | None = None
    generated: Counter[int] = field(default_factory=Counter)
    random: Callable[[], float] = field(default_factory=lambda: random.Random().random)
    generator: Any = None
    """torch's, of a stream that draws as torch does; the sampler makes it with the first draw."""
    cancelled: bool = False

    @classmethod
    def of(cls, request: TextRequest, sink: Sink, rules: Any = None) -> Sequence:
        """Make the sequence of a request. A seed makes its draws repeatable and independent of batch mates."""
        if isinstance(request, ScoreRequest):
            return cls(request, sink, [*request.prompt, *request.scored])
        if isinstance(request, ForwardRequest):
            return cls(request, sink, [*request.prompt, *request.following])._with_cache()
        draws = random.Random(request.sampling.seed).random
        return cls(request, sink, list(request.prompt), rules, random=draws)._with_cache()

    @property
    def cache(self) -> Cache | None:
        """Keys and values that came with the request."""
        return None if isinstance(self.request, ScoreRequest) else self.request.cache

    def _with_cache(self) -> Sequence:
        """Take over what the request's cache has of its text, if it came with one."""
        if self.cache is not None:
            self.num_cached = min(self.cache.num_known(tuple(self.tokens)), self.first_wanted)
        return self

    @property
    def num_generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_computed(self) -> int:
        """Tokens whose keys and values are in the KV cache: none without a lease."""
        return 0 if self.lease is None else self.lease.num_computed

    @property
    def num_uncomputed(self) -> int:
        """Tokens whose keys and values are still to be computed."""
        return self.last_position + 1 - self.num_computed

    @property
    def last_position(self) -> int:
        """Position of the last token worth a forward pass: nothing is asked after the last scored token."""
        return len(self.tokens) - (2 if isinstance(self.request, ScoreRequest) else 1)

    @property
    def first_wanted(self) -> int:
        """First position after whose token logits are needed; they are after every later one too."""
        if isinstance(self.request, ScoreRequest):
            return max(0, len(self.request.prompt) + self.num_answered - 1)
        if isinstance(self.request, ForwardRequest):
            return len(self.tokens) - self.request.num_logits + self.num_answered
        return self.last_position

    @property
    def num_shareable(self) -> int:
        """How many of the first tokens may be taken over from other sequences."""
        computes_all = isinstance(self.request, GenerateRequest) and not self.request.use_cache
        return 0 if computes_all or self.num_cached else self.first_wanted

    def append(self, token: int) -> None:
        """Add a sampled token."""
        self.tokens.append(token)
        self.generated[token] += 1

    def finish_reason(self, token: int, eos_ids: frozenset[int], max_context: int) -> FinishReason | None:
        """Why the stream ends with `token`, already appended; None if it goes on. `eos_ids` are the model's."""
        request = self.request
        if not isinstance(request, GenerateRequest):
            raise TypeError("only what is generated ends with a token")
        if token in request.ends(eos_ids):
            return "stop"
        if self.num_generated >= request.max_tokens or len(self.tokens) >= max_context:
            return "length"
        return None

    def cancel(self) -> None:
        """Have the stream dropped before the next step."""
        self.cancelled = True

    def emit(self, *events: AnyEvent) -> bool:
        """Hand events to the client's side; return whether the stream has ended with them."""
        try:
            self.sink(events)
        except Exception:
            # One client's side is broken; the others' streams share this thread and this step.
            _log.exception("a sink raised; its stream ends")
            return True
        last = events[-1]
        return not isinstance(last, TokenEvent) or last.finish_reason is not None
