"""One gateway's life: it listens, says how it is reached, and leaves in good order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from cogsmith.errors import ServeError, UserError
from cogsmith.gateway.assembly import Report, Settings, assemble
from cogsmith.gateway.demo.routes import PATH

_DRAIN_SECONDS = 30.0
_LEAVE_SECONDS = 5
_BACKLOG = 2048
# Longer than clients keep an idle connection (httpx 5 s, aiohttp 15 s), or they would use some just as it is closed.
_KEEP_ALIVE_SECONDS = 75


class Gateway:
    """A gateway for the work directories `folders`. It holds its port from the beginning; `run` serves."""

    def __init__(self, folders: Sequence[Path], settings: Settings, report: Report) -> None:
        """Raises UserError for folders that cannot be served, and for a port that is taken. Nothing is started yet."""
        self._parts = assemble(folders, settings, report)
        self._settings = settings
        self._report = report
        self._socket = _bind(settings.host, settings.port)
        self.address = f"{_reachable(settings.host)}:{self._socket.getsockname()[1]}"
        """HOST:PORT, as a client on this machine writes it."""
        self.url = f"http://{self.address}"
        """What clients take for the base of Replicate's API."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requests = 0
        self._stop_requested = asyncio.Event()
        self._stop_at_once = asyncio.Event()

    def run(self) -> None:
        """Serve until `stop` is called or, on the main thread, SIGTERM, SIGINT or SIGHUP comes.

        Predictions that run then may go on for half a minute; a second request ends them at once. Raises ServeError
        where no model can be set up.
        """
        asyncio.run(self._main())

    def stop(self) -> None:
        """Ask for the end, from any thread; ask twice to be obeyed at once."""
        self._stop_requests += 1
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._heed_stop_requests)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heed_stop_requests()
        server = _Server(_uvicorn_config(self._parts.app, self._settings))
        with self._signals():
            serving = asyncio.create_task(server.serve(sockets=[self._socket]))
            await server.listening.wait()
            starting = asyncio.create_task(self._start_models())
            for line in self._how_to_reach_it():
                self._report(line)
            await self._stop_requested.wait()
            await self._drain()
            server.should_exit = True
            await serving
        if starting.done():
            starting.result()
        starting.cancel()

    async def _start_models(self) -> None:
        """Start all models ahead, unless told not to. Where none can be started, ask for the end and raise why."""
        if self._settings.lazy:
            self._report("models start when they are first asked for; Ctrl-C ends the gateway")
            return
        workers = self._parts.models.all()
        results = await asyncio.gather(*(worker.ready() for worker in workers), return_exceptions=True)
        if self._stop_requested.is_set():
            return
        failures = [result for result in results if isinstance(result, UserError)]
        if len(failures) == len(workers):
            self.stop()
            raise failures[0]
        ready = [worker.model.name for worker in workers if worker.state == "ready"]
        self._report(f"ready: {', '.join(ready)}; Ctrl-C ends the gateway")

    async def _drain(self) -> None:
        """Let running predictions end, for some time or until there is a second request to stop."""
        self._parts.closing.closing = True
        self._report("stopping; running predictions may finish (once more to stop at once)")
        draining = asyncio.create_task(self._parts.predictions.drain(_DRAIN_SECONDS))
        hurrying = asyncio.create_task(self._stop_at_once.wait())
        await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        await self._parts.predictions.drain(0.0)
        await draining

    def _heed_stop_requests(self) -> None:
        if self._stop_requests > 0:
            self._stop_requested.set()
        if self._stop_requests > 1:
            self._stop_at_once.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Take signals for requests to stop, where that can be done: on the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _how_to_reach_it(self) -> Iterator[str]:
        names = [worker.model.name for worker in self._parts.models.all()]
        yield f"listening on {self.url}"
        if self._settings.demo:
            yield f"  the page, in a browser  {self.url}{PATH}"
        yield f"  Replicate's clients    REPLICATE_BASE_URL={self.url}"
        if self._settings.token is None:
            yield "                         (any REPLICATE_API_TOKEN will do)"
        for name in names:
            yield f"  {name:<22} replicate:local/{name}"
        yield f'  LMQL, other clients    endpoint="{self.address}", which is ws://{self.address}/ ({names[0]})'
        for name in names[1:]:
            yield f"                         ws://{self.address}/{name}"


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals to the gateway."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As the base class."""
        await super().startup(sockets)
        self.listening.set()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override] # a generator there
        """Capture none."""
        return contextlib.nullcontext()


def _uvicorn_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws_max_size=settings.max_body,
        ws_per_message_deflate=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_LEAVE_SECONDS,
    )


def _bind(host: str, port: int) -> socket.socket:
    """Take the port; 0 is a free one. Raises ServeError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # Where a name stands for both, IPv4 first: not every client tries the other.
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        # The protocol must be named, or asyncio leaves Nagle's algorithm on, and answers wait for 40 ms.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise ServeError(
            f"port {port} on {host} cannot be used: {error.strerror}",
            fix="choose another --port, or an address of this machine as --host",
        ) from error
    return listener


def _reachable(host: str) -> str:
    """The host as a URL has it; for "all addresses", one of this machine's own."""
    if host in ("0.0.0.0", "::", ""):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
