"""One Cog server's life on this machine: a work directory under the real Cog runtime, without Docker."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx2

from cogsmith.errors import ServeError
from cogsmith.gateway.environment import environment

_STARTING = ("STARTING", "UNKNOWN")
_SERVING = ("READY", "BUSY")
_LOG_TAIL_LINES = 15
_STOP_SECONDS = 10.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # opened here: a forked child must not load anything
# To Linux a process's parent is the thread that started it. This one lives as long as the program.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="cog-spawner")


class CogProcess:
    """A started Cog server. Use `start` or the context manager `running`."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], url: str, log: IO[bytes] | None) -> None:
        self.folder = folder
        self.url = url
        self._process = process
        self._log = log
        self._stopped = False

    def wait_until_ready(self, seconds: float = 900.0) -> None:
        """Wait until predictions are served. Raises ServeError with the log's end when set-up fails or takes longer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._check_alive()
            health = self._health()
            status = health.get("status", "UNKNOWN")
            if status in _SERVING:
                return
            if status not in _STARTING:
                raise ServeError(f"the model's set-up ended as {status}:\n{_setup_log(health)}{self._log_tail()}")
            time.sleep(0.1)
        raise ServeError(f"{self.folder.name} was not ready after {seconds:g} seconds:\n{self._log_tail()}")

    def wait(self) -> int:
        """Wait for the server to end by itself; return its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """End the server and everything it started. Running predictions get some seconds to finish. Idempotent."""
        if self._stopped:
            return  # its process group's number may be another's by now
        self._stopped = True
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        # The worker has the server's process group; after a crash it may be all that is left of it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._log is not None:
            self._log.close()

    def _check_alive(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise ServeError(f"the Cog server ended with code {code} before it was ready:\n{self._log_tail()}")

    def _health(self) -> Mapping[str, object]:
        try:
            health: Mapping[str, object] = httpx2.get(f"{self.url}/health-check", timeout=10.0).json()
        except (httpx2.TransportError, ValueError):
            return {}
        return health

    def _log_tail(self) -> str:
        if self._log is None:
            return "  | its log is above"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  | {line}" for line in lines[-_LOG_TAIL_LINES:])


def start(folder: Path, *, host: str = "127.0.0.1", port: int = 0, show_log: bool = False) -> CogProcess:
    """Start the work directory `folder` under Cog's own HTTP server. `port` 0 takes a free one.

    The server's log goes to stderr with `show_log`, else to a temporary file that error messages quote from. The server
    dies with this process. Raises ServeError, MissingExtra, MissingPackages.
    """
    variables = environment(folder)
    port = _check_port(host, port)
    log = None if show_log else tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
    process = _spawner.submit(
        subprocess.Popen,
        [sys.executable, "-m", "cog.server.http", "--host", host],
        cwd=folder,
        env={**variables, "PORT": str(port)},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if log is None else log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent,  # one prctl call, no Python locks
    ).result()
    return CogProcess(folder, process, f"http://{host}:{port}", log)


@contextlib.contextmanager
def running(folder: Path, *, seconds: float = 900.0) -> Iterator[CogProcess]:
    """Start `folder`, wait until it is ready, and stop it at the end. Raises what `start` raises."""
    server = start(folder)
    try:
        server.wait_until_ready(seconds)
        yield server
    finally:
        server.stop()


def _check_port(host: str, port: int) -> int:
    """Return a port that can be bound now: Cog does not say which one it took, or why it could not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"port {port} on {host} cannot be used: {error.strerror}",
                fix="choose another --port, or an IPv4 address of this machine as --host",
            ) from error
        taken: int = probe.getsockname()[1]
        return taken


def _die_with_parent() -> None:
    """Ask Linux to end the server when this process dies, however it dies."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _setup_log(health: Mapping[str, object]) -> str:
    setup = health.get("setup")
    logs = str(setup.get("logs", "")) if isinstance(setup, dict) else ""
    return "".join(f"  | {line}\n" for line in _COLOUR.sub("", logs).splitlines())
