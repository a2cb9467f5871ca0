"""One request for vectors on its way: its texts, what was asked of them, and what has been computed so far."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch

from cogsmith.engine.encoder_model import EncoderModel, States
from cogsmith.engine.pooling import normalized, pooled
from cogsmith.engine.request import AnyEvent, EncodedEvent, Pooling, Sink
from cogsmith.engine.step import NOT_FINITE
from cogsmith.engine.vector_admission import Asked, Name


@dataclass(eq=False, slots=True)
class Text:
    """One text of a request: the row at `place`."""

    encoding: Encoding
    place: int
    client: Hashable

    @property
    def ids(self) -> tuple[int, ...]:
        """What the model reads."""
        return self.encoding.asked.rows[self.place]

    @property
    def mask(self) -> tuple[bool, ...]:
        """Which of it is text."""
        return self.encoding.asked.masks[self.place]


class Encoding:
    """A request under way. Its answer goes out once all of its texts have theirs."""

    def __init__(self, asked: Asked, sink: Sink, client: Hashable) -> None:
        self.asked = asked
        self.cancelled = False
        self.texts = [Text(self, place, client) for place in range(len(asked.rows))]
        self._sink = sink
        self._ended = False
        self._outputs: dict[Name, list[Any]] = {name: [None] * len(asked.rows) for name in asked.names}
        self._num_left = len(asked.rows)

    def cancel(self) -> None:
        """Drop what still waits. Idempotent, thread-safe."""
        self.cancelled = True

    def put(self, place: int, outputs: dict[Name, Any]) -> None:
        """Keep the answer for one text."""
        for name, values in outputs.items():
            self._outputs[name][place] = values
        self._num_left -= 1

    def finish(self) -> bool:
        """Send the answer if it is complete; return whether this request has ended."""
        if not (self._ended or self._num_left):
            self.emit(self._answer())
        return self._ended

    def emit(self, event: AnyEvent) -> None:
        """Send the last event. Nothing follows it."""
        if not self._ended:
            self._ended = True
            # A sink that fails is its owner's loss.
            try:
                self._sink((event,))
            except Exception:
                self.cancelled = True

    def _answer(self) -> AnyEvent:
        outputs = {name: tuple(values) for name, values in self._outputs.items()}
        if not all(numpy.isfinite(one).all() for values in outputs.values() for one in values):
            return NOT_FINITE
        asked = self.asked
        return EncodedEvent(outputs, asked.rows, asked.pooling, asked.normalize, asked.padding_id)


@dataclass(slots=True)
class _Batch:
    """Hidden states of a batch, and what has been made of them: several texts want the same."""

    states: States
    mask: torch.Tensor
    made: dict[tuple[Name, Pooling, bool], Any] = field(default_factory=dict)

    def output(self, name: Name, pooling: Pooling, normalize: bool) -> Any:
        """Return one output of all rows, on the host."""
        key = name, pooling, normalize
        if key not in self.made:
            states = self._of(name)
            vectors = pooled(states, self.mask.to(states.device), pooling)
            self.made[key] = (normalized(vectors) if normalize else vectors).cpu().numpy()
        return self.made[key]

    def _of(self, name: Name) -> torch.Tensor:
        if name == "last":
            return self.states.last
        return self.states.layers[0 if name == "embedding" else int(name) + 1]


def answers(model: EncoderModel, texts: Sequence[Text]) -> None:
    """Run `texts` as one batch, and put each one's answer into its request."""
    ids, mask = model.batch([text.ids for text in texts], [text.mask for text in texts])
    every_layer = any(text.encoding.asked.names != ("last",) for text in texts)
    batch = _Batch(model.run(ids, mask, every_layer=every_layer), mask)
    for row, text in enumerate(texts):
        asked = text.encoding.asked
        outputs: dict[Name, Any] = {}
        for name in asked.names:
            values = batch.output(name, asked.pooling, asked.normalize)[row]
            # A copy: a view would keep the whole batch.
            outputs[name] = (values[: len(text.ids)] if asked.pooling == "none" else values).copy()
        text.encoding.put(text.place, outputs)
