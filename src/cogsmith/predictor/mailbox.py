"""Events on their way to the thread of one prediction: from the engine's thread, and from other predictions'."""

from __future__ import annotations

import heapq
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from cogsmith.engine.request import AnyEvent, ComputedEvent, EncodedEvent, FailedEvent, Sink
from cogsmith.errors import RequestError


@dataclass(frozen=True, slots=True)
class EndedEvent:
    """The end of a stream that is not the engine's doing; `message` tells why. Nothing follows."""

    reason: Literal["cancelled", "deadline"]
    message: str


StreamEvent = AnyEvent | EndedEvent

_OnlyEvent = TypeVar("_OnlyEvent", EncodedEvent, ComputedEvent)

Delivery = tuple[int, tuple[StreamEvent, ...]]
"""A stream's number within its prediction, and its events of one step."""

_CANCELLED = EndedEvent("cancelled", "the client cancelled this")
_OVERDUE = EndedEvent("deadline", "the deadline that the client set has passed")

_POLL_SECONDS = 0.5


class Cancelled(Exception):
    """The client no longer wants the prediction."""


class DeadlinePassed(Exception):
    """The prediction has had its time."""


class Mailbox:
    """Collects the events of all streams of a prediction, its cancellation and all deadlines.

    `seconds` is how long the prediction may take, from now.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue: queue.SimpleQueue[Delivery | Literal["cancelled"]] = queue.SimpleQueue()
        self._clock = clock
        self._seconds = seconds
        self._started = clock()
        self._deadlines: list[tuple[float, int]] = []
        self._num_streams = 0

    def elapsed(self) -> float:
        """Seconds since the prediction began."""
        return self._clock() - self._started

    def next_streams(self, count: int) -> int:
        """Set aside numbers for so many streams; return the first."""
        first, self._num_streams = self._num_streams, self._num_streams + count
        return first

    def sink(self, stream: int) -> Sink:
        """A sink for the events of one stream."""
        return lambda events: self._queue.put((stream, events))

    def set_deadline(self, stream: int, seconds: float) -> None:
        """Deliver the end of a stream, ended or not, so many seconds after the prediction began."""
        heapq.heappush(self._deadlines, (seconds, stream))

    def cancel_stream(self, stream: int) -> None:
        """Deliver the end of a stream. May be called from any thread."""
        self._queue.put((stream, (_CANCELLED,)))

    def cancel(self) -> None:
        """End the prediction; `take` raises Cancelled. May be called from any thread."""
        self._queue.put("cancelled")

    def take(self) -> list[Delivery]:
        """Wait for events and return all that are there. Raises Cancelled or DeadlinePassed."""
        first = self._wait_for_one()
        deliveries = [] if first is None else [first]
        while True:
            try:
                deliveries.append(_checked(self._queue.get_nowait()))
            except queue.Empty:
                return deliveries + self._overdue()

    def take_only(self, stream: int, kind: type[_OnlyEvent]) -> _OnlyEvent:
        """Wait for the one event of a stream that has but one; events of others are dropped.

        Raises RequestError where it is a failure, and what `take` raises.
        """
        while True:
            for event in (event for number, events in self.take() if number == stream for event in events):
                if isinstance(event, kind):
                    return event
                if isinstance(event, FailedEvent | EndedEvent):
                    raise RequestError(event.message)

    def _wait_for_one(self) -> Delivery | None:
        """Return the next delivery; None where a stream's deadline passes before it comes."""
        # Short waits: under a runtime that cancels by raising in this thread, that takes effect between two of them.
        while (now := self.elapsed()) < self._seconds:
            next_deadline = min(self._deadlines[0][0] if self._deadlines else self._seconds, self._seconds)
            if next_deadline <= now:
                return None
            try:
                return _checked(self._queue.get(timeout=min(next_deadline - now, _POLL_SECONDS)))
            except queue.Empty:
                continue
        raise DeadlinePassed(f"the prediction has had its {self._seconds:g} seconds")

    def _overdue(self) -> list[Delivery]:
        """Take out the deadlines that have passed."""
        now = self.elapsed()
        overdue: list[Delivery] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            overdue.append((heapq.heappop(self._deadlines)[1], (_OVERDUE,)))
        return overdue


def _checked(item: Delivery | Literal["cancelled"]) -> Delivery:
    if item == "cancelled":
        raise Cancelled
    return item
