"""An event loop on a thread of its own, for engines and clients that are asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from engines.peers import Call

Result = TypeVar("Result")


class Loop:
    """Runs coroutines from other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._running: set[asyncio.Task[None]] = set()
        threading.Thread(target=self._loop.run_forever, name="event-loop", daemon=True).start()

    def result(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run `coroutine` and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def start(self, calls: Sequence[Call], tokens: Callable[[Call], AsyncIterator[tuple[list[int], bool]]]) -> None:
        """Begin all calls at one moment; `tokens` yields what `Call.emit` takes."""

        def begin() -> None:
            for call in calls:
                task = self._loop.create_task(_drain(call, tokens))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

        self._loop.call_soon_threadsafe(begin)


async def _drain(call: Call, tokens: Callable[[Call], AsyncIterator[tuple[list[int], bool]]]) -> None:
    try:
        async for ids, is_last in tokens(call):
            call.emit(ids, is_last)
    except Exception as error:
        call.fail(f"{type(error).__name__}: {error}")
