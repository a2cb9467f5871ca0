"""Hear of a prediction's cancellation, whatever the runtime does with it.

Cog's runtime starts an async `run` with `asyncio.run_coroutine_threadsafe` and cancels the future it got. But the only
shape of `run` that streams live returns a plain generator at once; its future is long done when the cancel comes, so
the generator never learns of it. `install` wraps that one function: the returned future's `cancel` then also fires a
hook that `run` can pick up with `current_hook`.

This leans on how coglet 0.23 calls asyncio. Where it does not, `current_hook` is None and a prediction still ends by
its deadline.

coglet itself loses a cancel that overtakes its prediction's start, within some milliseconds of the request: nothing in
this process hears of it. Whoever cancels by id repeats that until Cog answers 404; else the deadline ends it.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")

_hook: contextvars.ContextVar[CancelHook | None] = contextvars.ContextVar("cancel_hook", default=None)


class CancelHook:
    """Calls its listener once, when the prediction is cancelled; at once, if that has happened already."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listener: Callable[[], None] | None = None
        self._fired = False

    def on_cancel(self, listener: Callable[[], None]) -> None:
        """Set the listener. It may be called on any thread."""
        with self._lock:
            self._listener = listener
            fired = self._fired
        if fired:
            listener()

    def fire(self) -> None:
        """Say that the prediction was cancelled. Only the first call counts."""
        with self._lock:
            if self._fired:
                return
            self._fired = True
            listener = self._listener
        if listener is not None:
            listener()


def current_hook() -> CancelHook | None:
    """Return the hook of the prediction whose `run` is calling; None under a runtime that gives none."""
    return _hook.get()


def install() -> None:
    """Wrap `asyncio.run_coroutine_threadsafe`, once per process."""
    original = asyncio.run_coroutine_threadsafe
    if getattr(original, "gives_cancel_hook", False):
        return

    def run_coroutine_threadsafe(coro: Coroutine[Any, Any, _T], loop: asyncio.AbstractEventLoop) -> Future[_T]:
        hook = CancelHook()

        async def hooked() -> _T:
            _hook.set(hook)
            return await coro

        future = original(hooked(), loop)
        cancel_future = future.cancel

        def cancel() -> bool:
            hook.fire()
            return cancel_future()

        future.cancel = cancel  # type: ignore[method-assign]
        return future

    run_coroutine_threadsafe.gives_cancel_hook = True  # type: ignore[attr-defined]
    asyncio.run_coroutine_threadsafe = run_coroutine_threadsafe
