"""Events on their way from the engine's thread to the thread of one prediction."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Literal

from cogsmith.engine.request import Event, Sink

Delivery = tuple[int, tuple[Event, ...]]
"""A stream's number within its prediction, and its events of one step."""

_POLL_SECONDS = 0.5


class Cancelled(Exception):
    """The client no longer wants the prediction."""


class DeadlinePassed(Exception):
    """The prediction has had its time."""


class Mailbox:
    """Collects the events of all streams of a prediction, its cancellation and its deadline.

    `seconds` is how long the prediction may take, from now.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue: queue.SimpleQueue[Delivery | Literal["cancelled"]] = queue.SimpleQueue()
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock() + seconds

    def sink(self, stream: int) -> Sink:
        """A sink for the events of one stream."""
        return lambda events: self._queue.put((stream, events))

    def cancel(self) -> None:
        """End the prediction; `take` raises Cancelled. May be called from any thread."""
        self._queue.put("cancelled")

    def take(self) -> list[Delivery]:
        """Wait for events and return all that are there. Raises Cancelled or DeadlinePassed."""
        deliveries = [self._wait_for_one()]
        while True:
            try:
                deliveries.append(_checked(self._queue.get_nowait()))
            except queue.Empty:
                return deliveries

    def _wait_for_one(self) -> Delivery:
        # Short waits: under a runtime that cancels by raising in this thread, that takes effect between two of them.
        while (left := self._deadline - self._clock()) > 0:
            try:
                return _checked(self._queue.get(timeout=min(left, _POLL_SECONDS)))
            except queue.Empty:
                continue
        raise DeadlinePassed(f"the prediction has had its {self._seconds:g} seconds")


def _checked(item: Delivery | Literal["cancelled"]) -> Delivery:
    if item == "cancelled":
        raise Cancelled
    return item
