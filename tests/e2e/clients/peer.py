"""A client under test, in a process of its own: calls go in and answers come out as lines of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CALL_SECONDS = 120


class PeerError(Exception):
    """What the client raised, as its traceback."""


class Peer:
    """Calls functions of a script that `answering.py` (or its like) serves."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def call(self, function: str, **arguments: Any) -> Any:
        """Return what `function` returned, as JSON has it. Raises PeerError with what it raised."""
        self._process.stdin.write(json.dumps([function, arguments]).encode() + b"\n")
        readable, _, _ = select.select([self._process.stdout], [], [], CALL_SECONDS)
        if not readable:
            raise TimeoutError(f"{function} has not answered after {CALL_SECONDS} seconds")
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"{function} ended the client's process: exit code {self._process.wait(10)}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["result"]


@contextmanager
def running(*command: str | os.PathLike[str], variables: Mapping[str, str]) -> Iterator[Peer]:
    """Start a script that answers calls, and end it after the block."""
    process = subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], **variables},
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    try:
        yield Peer(process)
    finally:
        process.kill()
        process.communicate()
