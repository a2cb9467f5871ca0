"""The one thread of an engine, and the inbox through which other threads hand it what they ask for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from cogsmith.engine.admission import ENDING, check_room
from cogsmith.errors import RequestError
from cogsmith.manifest import Limits

Item = TypeVar("Item")


class EngineThread(Generic[Item]):
    """Runs `loop`, once it was started; `take` in it gives what has come, and `closing` says when to return.

    `num_taken` says how many of the items that were taken are not at their end yet. It is called from any thread.
    """

    def __init__(self, loop: Callable[[], None], limits: Limits, num_taken: Callable[[], int]) -> None:
        self._limits = limits
        self._num_taken = num_taken
        self._inbox: list[Item] = []
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=loop, name="engine", daemon=True)

    def start(self) -> None:
        """Begin, when all that the loop uses is there."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand `item` over. Raises RequestError when the queue is full, or the engine is closing."""
        with self._wake:
            if self._closing:
                raise RequestError(ENDING)
            # Taken ones first: against an item's way, so that none is counted twice while the thread moves it on.
            check_room(self._num_taken() + len(self._inbox), self._limits)
            self._inbox.append(item)
            self._wake.notify()

    def take(self, *, idle: bool, note: Callable[[Iterable[Item]], object] = lambda items: None) -> list[Item]:
        """Return what has come; an `idle` thread sleeps until something has, or the engine closes.

        `note` is called with them before anything more may come, so that what it counts is never short of them.
        """
        with self._wake:
            while idle and not (self._inbox or self._closing):
                self._wake.wait()
            arrived, self._inbox = self._inbox, []
            note(arrived)
        return arrived

    @property
    def closing(self) -> bool:
        """Whether nothing more is taken on, and the loop is to end what is left and return."""
        return self._closing

    def healthy(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the loop return, and wait until it has. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
