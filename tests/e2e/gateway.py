"""`cogsmith serve`, started as a user starts it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 120
# Longer than a gateway lets running predictions go on.
STOP_SECONDS = 60


@dataclass(frozen=True)
class Gateway:
    """A running gateway: where it listens, and its process."""

    url: str
    process: subprocess.Popen[bytes]

    def servers(self) -> list[int]:
        """The ids of the Cog servers that it started."""
        return _children(self.process.pid)

    def workers(self) -> list[int]:
        """The ids of the processes in which these servers run the models."""
        return [worker for server in self.servers() for worker in _children(server)]


@contextmanager
def running(*folders: Path, log: Path, options: tuple[str, ...] = ()) -> Iterator[Gateway]:
    """Serve work directories on a free port of loopback; what the gateway says goes to the file `log`."""
    command = [sys.executable, "-m", "cogsmith.cli.main", "serve", *folders, "--port", "0", *options]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield Gateway(_url(process, log), process)
        process.terminate()
        process.wait(STOP_SECONDS)
    finally:
        process.kill()
        process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the gateway says where it listens."""
    deadline = time.monotonic() + START_SECONDS
    while not (found := re.search(r"listening on (\S+)\n", log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"cogsmith serve did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return found.group(1)


def _children(pid: int) -> list[int]:
    """Linux lists the children of each thread."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]
