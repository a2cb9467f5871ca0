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
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx2

from cogsmith.errors import ServeError
from cogsmith.gateway.environment import environment

SETUP_SECONDS = 900.0
"""The longest set-up that is waited for, unless told otherwise."""

_STARTING = ("STARTING", "UNKNOWN")
_SERVING = ("READY", "BUSY")
_HEALTH_TIMEOUT = 15.0  # Cog itself waits up to 10 s for the worker's word
_LOG_TAIL_LINES = 15
_STOP_SECONDS = 10.0
_SETUP_LINE = re.compile(r"coglet::setup: +(.*?) *(?:source=\w+)?$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # opened here: a forked child must not load anything
# To Linux a process's parent is the thread that started it. This one lives as long as the program.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="cog-spawner")


class CogProcess:
    """A started Cog server. Use `start` or the context manager `running`. Its methods block."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
        self.folder = folder
        self.url = url
        self._process = process
        self._log = log
        self._http = httpx2.Client(base_url=url, timeout=_HEALTH_TIMEOUT, trust_env=False)
        self._started = time.monotonic()
        self._stopping = threading.Lock()
        self._stopped = False

    def is_ready(self, seconds: float = SETUP_SECONDS) -> bool:
        """Whether predictions are served; False while it sets up.

        Raises ServeError, with the log's end, where set-up has failed or takes longer than `seconds` from the start.
        """
        self._check_alive()
        health = self._health()
        status = health.get("status", "UNKNOWN")
        if status in _SERVING:
            return True
        if status not in _STARTING:
            raise ServeError(f"the model's set-up ended as {status}:\n{_quoted(_setup_log(health))}{self._log_tail()}")
        if time.monotonic() - self._started > seconds:
            raise ServeError(f"{self.folder.name} was not ready after {seconds:g} seconds:\n{self._log_tail()}")
        return False

    def wait_until_ready(self, seconds: float = SETUP_SECONDS) -> None:
        """Wait until predictions are served. Raises what `is_ready` raises."""
        while not self.is_ready(seconds):
            time.sleep(0.1)

    def is_broken(self) -> bool:
        """Whether a server that was ready can serve no more: it has ended, its worker has, or it does not answer.

        The question is asked twice, as one bad answer may be a moment's.
        """
        if self._is_serving():
            return False
        time.sleep(0.2)
        return not self._is_serving()

    def progress(self) -> str:
        """The last line that the model's set-up wrote so far; empty where there is none."""
        lines = map(_SETUP_LINE.search, reversed(self._log_lines()))
        return next((found[1].strip() for found in lines if found and found[1].strip()), "")

    def stop(self) -> None:
        """End the server and everything it started. Running predictions get some seconds to finish.

        Idempotent, and safe to call from several threads.
        """
        with self._stopping:
            if not self._stopped:  # afterwards the process group's number may be another's
                self._end_group()
                self._http.close()
                self._log.close()
            self._stopped = True

    def _end_group(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        # The worker has the server's process group; after a crash it may be all that is left of it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _check_alive(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise ServeError(f"the Cog server ended with code {code} before it was ready:\n{self._log_tail()}")

    def _is_serving(self) -> bool:
        if self._process.poll() is not None:
            return False
        health = self._health()
        # A model that is too busy to say how it does is no broken one.
        return health.get("status") in _SERVING or "timed out" in str(health.get("user_healthcheck_error"))

    def _health(self) -> Mapping[str, object]:
        """Cog's answer; empty where none came. Its HTTP status is 200 whatever it says."""
        try:
            health: Mapping[str, object] = self._http.get("/health-check").json()
        except (httpx2.TransportError, ValueError):
            return {}
        return health

    def _log_tail(self) -> str:
        return _quoted("\n".join(self._log_lines()[-_LOG_TAIL_LINES:]))

    def _log_lines(self) -> list[str]:
        """The lines of the log so far, without colours."""
        self._log.seek(0)
        return _COLOUR.sub("", self._log.read().decode(errors="replace")).splitlines()


def start(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    variables: Mapping[str, str] | None = None,
) -> CogProcess:
    """Start the work directory `folder` under Cog's own HTTP server. `port` 0 takes a free one.

    The server's log goes to a temporary file that error messages quote from. The server dies with this process.
    `variables` are added to its environment. Raises ServeError, MissingExtra, MissingPackages.
    """
    settings = environment(folder, variables)
    port = _check_port(host, port)
    log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
    process = _spawner.submit(
        subprocess.Popen,
        [sys.executable, "-m", "cog.server.http", "--host", host],
        cwd=folder,
        env={**settings, "PORT": str(port)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent,  # one prctl call, no Python locks
    ).result()
    return CogProcess(folder, process, f"http://{host}:{port}", log)


@contextlib.contextmanager
def running(folder: Path, *, seconds: float = SETUP_SECONDS) -> Iterator[CogProcess]:
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
    return _COLOUR.sub("", logs)


def _quoted(text: str) -> str:
    return "".join(f"  | {line}\n" for line in text.splitlines())
