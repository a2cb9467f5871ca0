"""This engine, in process, by its own interface."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from cogsmith.engine.loader import load
from cogsmith.engine.request import Event, FailedEvent, GenerateRequest, ScoreRequest
from cogsmith.engine.transformers_engine import TransformersEngine
from cogsmith.errors import RequestError
from cogsmith.manifest import Limits
from engines.peers import Call, Setting


def open_peer(setting: Setting) -> Ours:
    """Load the checkpoint as a work directory's predictor does."""
    loaded = load(setting.checkpoint, {"dtype": setting.dtype}, name="benchmark")
    return Ours(TransformersEngine(loaded, Limits()))


class Ours:
    """Implements `Peer`."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine

    def start(self, calls: Sequence[Call]) -> None:
        for call in calls:
            request = GenerateRequest(
                tuple(call.prompt),
                call.max_tokens,
                bias=call.bias,
                top_logprobs=call.top_logprobs,
                min_tokens=call.max_tokens,
            )
            try:
                self._engine.submit(request, _sink(call))
            except RequestError as error:
                call.fail(str(error))

    def score(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        scores = [_Scores() for _ in options]
        for option, one in zip(options, scores, strict=True):
            self._engine.submit(ScoreRequest(tuple(prompt), tuple(option)), one)
        return [one.result() for one in scores]

    def model_process(self) -> int:
        return os.getpid()

    def close(self) -> None:
        self._engine.close()


def _sink(call: Call) -> Callable[[tuple[Event, ...]], None]:
    def sink(events: tuple[Event, ...]) -> None:
        last = events[-1]
        if isinstance(last, FailedEvent):
            call.fail(last.message)
        else:
            ids = [event.token for event in events if not isinstance(event, FailedEvent)]
            call.emit(ids, last.finish_reason is not None)

    return sink


class _Scores:
    """A sink for one scored option."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._ended = threading.Event()

    def __call__(self, events: tuple[Event, ...]) -> None:
        self._events += events
        last = events[-1]
        if isinstance(last, FailedEvent) or last.finish_reason is not None:
            self._ended.set()

    def result(self) -> list[float]:
        self._ended.wait()
        last = self._events[-1]
        if isinstance(last, FailedEvent):
            raise RuntimeError(last.message)
        return [event.logprob for event in self._events if not isinstance(event, FailedEvent)]
