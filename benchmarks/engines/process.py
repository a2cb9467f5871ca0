"""An engine's process, from the benchmark's side."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engines import tasks
from engines.peers import Setting

HERE = Path(__file__).parent


class EngineFailed(Exception):
    """An engine could not be started, or a task failed in it; the message is its own."""


class EngineProcess:
    """A worker with a model loaded. It is stopped (SIGSTOP) except while it is asked something.

    Some engines poll while they idle, which would take time from the one that is measured.
    """

    def __init__(self, name: str, python: Path, setting: Setting, more_path: Path) -> None:
        """Start the worker; `wait` for it before anything else."""
        self.name = name
        self._log = tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log")  # noqa: SIM115
        settings = {key: _plain(value) for key, value in dataclasses.asdict(setting).items()}
        self._process = subprocess.Popen(
            [python, "-m", "engines.worker", name, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(setting.threads, more_path),
            start_new_session=True,
        )

    def wait(self) -> dict[str, str]:
        """Wait until the model is loaded; return the versions of its packages. Raises EngineFailed."""
        versions: dict[str, str] = self._read()["versions"]
        self._signal(signal.SIGSTOP)
        return versions

    def run(self, task: tasks.Task) -> tasks.Measured:
        """Run a task. Raises EngineFailed."""
        return tasks.Measured(**self._ask(tasks.to_json(task)))

    def peak_bytes(self) -> int:
        """Return the most memory that the process which holds the model had at once. Raises EngineFailed."""
        return int(self._ask("memory")["peak_bytes"])

    def close(self) -> None:
        """End the worker and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
            self._process.communicate(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _ask(self, line: str) -> dict[str, Any]:
        self._signal(signal.SIGCONT)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            return self._read()
        except BrokenPipeError:
            raise EngineFailed(self._last_words()) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._signal(signal.SIGSTOP)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EngineFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineFailed(answer["error"])
        return answer

    def _last_words(self) -> str:
        lines = Path(self._log.name).read_text(encoding="utf-8", errors="replace").splitlines()
        return f"its process ended: {' / '.join(lines[-3:])}"

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)


@contextlib.contextmanager
def ended(processes: list[EngineProcess]) -> Iterator[None]:
    """End all of `processes` at the end, those too that were appended meanwhile."""
    try:
        yield
    finally:
        for process in processes:
            process.close()


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _environment(threads: int, more_path: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (HERE.parent, more_path)))
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return os.environ | offline | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
