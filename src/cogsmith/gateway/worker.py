"""One model under Cog: started on first use or ahead, watched, started again after a crash.

Everything happens on the event loop that first asks for the model; what blocks runs in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Literal

import anyio
from anyio import to_thread

from cogsmith.errors import ServeError, UserError
from cogsmith.gateway import cog_process
from cogsmith.gateway.cog_process import CogProcess
from cogsmith.gateway.models import ServedModel

State = Literal["stopped", "starting", "ready", "failed"]

_WATCH_SECONDS = 2.0
_PROGRESS_SECONDS = 1.0
_POLL_SECONDS = 0.1
_LONGEST_PAUSE = 60.0


class Worker:
    """Owns the Cog server of one model."""

    def __init__(
        self,
        model: ServedModel,
        *,
        variables: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`variables` join the server's environment; `report` is told of set-up progress and crashes, line by line."""
        self.model = model
        self.state: State = "stopped"
        self.slots = anyio.CapacityLimiter(model.concurrency)
        self._variables = variables
        self._report = report
        self._server: CogProcess | None = None
        self._changing = asyncio.Lock()
        self._starting: asyncio.Task[str] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._pause = _Pause()

    async def ready(self) -> str:
        """Return the server's base URL, once it serves; start it where it does not run.

        Those who ask at once wait for the same start. Raises ServeError where set-up fails; the next call tries
        again, after repeated failures only when a pause is over.
        """
        if self.state == "ready" and self._server is not None:
            return self._server.url
        if self._starting is None:
            self._pause.require_over()
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._start_ended)
        starting = self._starting
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise ServeError(f"{self.model.name} was stopped while it started") from None
            raise

    async def suspect(self) -> None:
        """Look whether the server is broken, as its caller believes; if so end it, and `ready` starts a new one."""
        server = self._server
        async with self._changing:
            if server is None or server is not self._server or not await to_thread.run_sync(server.is_broken):
                return
            self._report(f"{self.model.name}: the model has crashed")
            await self._end_server()

    async def stop(self) -> None:
        """End the server, and the watch over it."""
        tasks = [task for task in (self._watching, self._starting) if task is not None]
        self._watching = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with self._changing:
            await self._end_server()

    async def _start(self) -> str:
        async with self._changing:
            self.state = "starting"
            try:
                server = await self._set_up()
            except BaseException as error:
                await self._end_server()
                if not isinstance(error, UserError):
                    raise
                self.state = "failed"
                raise self._pause.failed(error) from error
            self.state = "ready"
            self._pause = _Pause()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return server.url

    async def _set_up(self) -> CogProcess:
        self._report(f"{self.model.name}: starting")
        started = time.monotonic()
        # On the loop, as it takes milliseconds: a thread's process would be lost if this task were cancelled.
        server = self._server = cog_process.start(self.model.folder, variables=self._variables)
        shown, look_at = "", started + _PROGRESS_SECONDS
        while not await to_thread.run_sync(server.is_ready):
            await asyncio.sleep(_POLL_SECONDS)
            if time.monotonic() > look_at:
                shown, look_at = await self._show_progress(server, shown), time.monotonic() + _PROGRESS_SECONDS
        self._report(f"{self.model.name}: ready after {time.monotonic() - started:.1f} s")
        return server

    async def _show_progress(self, server: CogProcess, shown: str) -> str:
        """Report the set-up's last line where it is another than `shown`; return it."""
        line = await to_thread.run_sync(server.progress)
        if line != shown:
            self._report(f"{self.model.name}: {line}")
        return line

    async def _watch(self) -> None:
        """Notice a crash while nobody asks for anything, and start the model again."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            await self.suspect()
            with contextlib.suppress(ServeError):
                await self.ready()

    async def _end_server(self) -> None:
        self.state = "stopped"
        if self._server is not None:
            await to_thread.run_sync(self._server.stop)
            self._server = None

    def _start_ended(self, task: asyncio.Task[str]) -> None:
        self._starting = None
        if not task.cancelled() and (error := task.exception()):
            self._report(f"{self.model.name}: {error}")


class _Pause:
    """How long to leave a model alone whose set-up keeps failing: not at all after the first time, then ever longer."""

    def __init__(self) -> None:
        self._failures = 0
        self._over_at = 0.0
        self._last = ""

    def failed(self, error: UserError) -> ServeError:
        """Count a failure; return it as the error to raise."""
        self._last = str(error)
        seconds = 0.0 if self._failures == 0 else min(2.0**self._failures, _LONGEST_PAUSE)
        self._failures += 1
        self._over_at = time.monotonic() + seconds
        return ServeError(self._last)

    def require_over(self) -> None:
        """Raise ServeError, with the last failure, where it is too early to try again."""
        seconds = self._over_at - time.monotonic()
        if seconds > 0:
            raise ServeError(f"{self._last}\n(tried {self._failures} times; the next try is in {seconds:.0f} s)")
