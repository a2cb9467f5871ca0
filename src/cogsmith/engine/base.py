"""The interface that every engine keeps and the predictor knows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cogsmith.engine.request import AnyRequest, Sink
from cogsmith.manifest import CAUSAL_LM


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs and what it can take.

    `head_size` is the width of the model's output; ids from `vocab_size` (what the tokenizer can decode) up to it
    are padding and never sampled. `footprint_bytes` is the memory of weights and buffers. A `task` other than
    "causal-lm" is that of a model which gives vectors.
    """

    model: str
    engine: str
    head_size: int
    vocab_size: int
    max_context: int
    eos_ids: frozenset[int]
    bos_id: int | None
    parameters: int
    footprint_bytes: int
    layers: int
    dtype: str
    device: str
    details: Mapping[str, Any] = field(default_factory=dict)
    task: str = CAUSAL_LM


class Handle(Protocol):
    """A request under way."""

    def cancel(self) -> None:
        """Stop the stream within one step, whose events may still come. Idempotent, thread-safe."""


class Engine(Protocol):
    """Turns requests into events. Every method may be called from any thread."""

    @property
    def info(self) -> EngineInfo:
        """What this engine runs."""

    def submit(self, request: AnyRequest, sink: Sink, *, client: Hashable = None) -> Handle:
        """Queue a request. Raises RequestError at once for one that can never run, or when the queue is full.

        A model that continues text takes no EmbedRequest, and one that gives vectors no other.
        Requests of one `client`, such as a prediction, wait in turn; those of different ones take turns.
        """

    def healthy(self) -> bool:
        """Whether requests are still being served."""

    def close(self) -> None:
        """End all streams; the model is freed with the last reference to the engine. Idempotent."""
