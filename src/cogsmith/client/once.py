"""A result that is made once, however many wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """The result of `make`, from the first `get` on. A failure reaches who waits for it; the next `get` tries again."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._make = make
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the result. Raises what making it raises."""
        task = self._task
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._task = asyncio.create_task(self._make())
        # Who gives up waiting must not take the result from the others.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop making it. Idempotent."""
        if self._task is not None and self._task.cancel():
            await asyncio.wait([self._task])
