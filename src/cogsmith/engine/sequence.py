"""One request on its way through the engine: the tokens so far and what is still to compute."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cogsmith.engine.request import (
    Event,
    FinishReason,
    GenerateRequest,
    Request,
    ScoreRequest,
    Sink,
    TokenEvent,
)

_log = logging.getLogger("cogsmith.engine")


@dataclass(eq=False, slots=True)
class Sequence:
    """A request with its progress, and the `Handle` of it. Only the engine's thread touches it, but for `cancel`.

    `tokens` holds the prompt and what follows it; the first `num_computed` of them are in the KV cache. `row` is
    the runner's name for that cache, None before the first chunk. `bias` is the request's bias, and `banned` the ids
    that it may not draw, in whatever form the sampler wants them.
    """

    request: Request
    sink: Sink
    tokens: list[int]
    bias: Any = None
    banned: Any = None
    row: int | None = None
    num_computed: int = 0
    generated: Counter[int] = field(default_factory=Counter)
    random: Callable[[], float] = field(default_factory=lambda: random.Random().random)
    cancelled: bool = False

    @classmethod
    def of(cls, request: Request, sink: Sink, bias: Any = None, banned: Any = None) -> Sequence:
        """Make the sequence of a request. A seed makes its draws repeatable and independent of batch mates."""
        if isinstance(request, ScoreRequest):
            return cls(request, sink, [*request.prompt, *request.scored])
        draws = random.Random(request.sampling.seed).random
        return cls(request, sink, list(request.prompt), bias, banned, random=draws)

    @property
    def num_generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - len(self.request.prompt)

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
            return max(0, len(self.request.prompt) - 1)
        return self.last_position

    def append(self, token: int) -> None:
        """Add a sampled token."""
        self.tokens.append(token)
        self.generated[token] += 1

    def finish_reason(self, token: int, eos_ids: Iterable[int], max_context: int) -> FinishReason | None:
        """Why the stream ends with `token`, already appended; None if it goes on."""
        request = self.request
        if not isinstance(request, GenerateRequest):
            raise TypeError("a scored sequence ends with its last token")
        if token in eos_ids:
            return "stop"
        if self.num_generated >= request.max_tokens or len(self.tokens) >= max_context:
            return "length"
        return None

    def cancel(self) -> None:
        """Have the stream dropped before the next step."""
        self.cancelled = True

    def emit(self, *events: Event) -> bool:
        """Hand events to the client's side; return whether the stream has ended with them."""
        try:
            self.sink(events)
        except Exception:
            # One client's side is broken; the others' streams share this thread and this step.
            _log.exception("a sink raised; its stream ends")
            return True
        last = events[-1]
        return not isinstance(last, TokenEvent) or last.finish_reason is not None
