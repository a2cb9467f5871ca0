"""Engines side by side in one run; prints a Markdown table.

    benchmarks/run [CHECKPOINT] [--vllm PYTHON] [--json FILE]

Every engine has a process of its own with the model loaded; one works at a time while the others are stopped. Each
repetition runs every row on every engine, in another order, over prompts that none has seen. Without CHECKPOINT the
example config's first model is built.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from cogsmith.manifest import CHECKPOINT
from engines import environments, machine
from engines.comparison import Comparison
from engines.peers import KINDS, Setting
from engines.process import EngineFailed, EngineProcess, ended
from engines.rows import ROWS
from engines.table import markdown


def main() -> None:
    chosen = _arguments()
    # Threads that spin while they wait harm one engine more than another; where neighbours run, all of them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Stopped processes would never see that nobody asks them any more.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with environments.temporary_folder() as folder:
        work_directory = environments.work_directory(chosen.checkpoint, Path(folder))
        setting = Setting(work_directory, work_directory / CHECKPOINT, chosen.dtype, chosen.threads)
        hardware = machine.describe(chosen.threads)
        rows = [row for row in ROWS if row.name in chosen.rows]
        processes: list[EngineProcess] = []
        comparison = Comparison(rows, chosen.engines, setting.checkpoint)
        with ended(processes):
            for name in chosen.engines:
                _start(name, setting, chosen.vllm, processes, comparison)
            comparison.run(processes, chosen.repeat)
    heading = f"{work_directory.name}, {chosen.dtype}, {chosen.repeat} repetitions. {hardware}."
    sys.stdout.write(f"{heading}\n\n{markdown(comparison.results, comparison.figures, chosen.engines)}")
    if chosen.json is not None:
        chosen.json.write_text(comparison.to_json(heading), encoding="utf-8")


def _start(
    name: str, setting: Setting, vllm: Path | None, processes: list[EngineProcess], comparison: Comparison
) -> None:
    """Start one engine; where that fails, note why and go on without it."""
    try:
        process = EngineProcess(name, environments.python_of(name, vllm), setting, environments.more_path(name))
        processes.append(process)
        comparison.started(process)
    except EngineFailed as error:
        sys.stderr.write(f"{name}: {error}\n")
        comparison.lacks_all(name, str(error))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", help="a folder with a checkpoint and its tokenizer")
    parser.add_argument("--engines", type=_listed, default=list(KINDS), help=",".join(KINDS))
    parser.add_argument("--rows", type=_listed, default=[row.name for row in ROWS])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=machine.granted_cores())
    parser.add_argument("--dtype", default="bfloat16" if machine.computes_bf16() else "float32")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="the interpreter of an environment with vLLM")
    parser.add_argument("--json", type=Path, help="write every repetition's numbers here")
    chosen = parser.parse_args()
    for option, known in (("engines", set(KINDS)), ("rows", {row.name for row in ROWS})):
        if unknown := set(getattr(chosen, option)) - known:
            parser.error(f"--{option} has no {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return chosen


def _listed(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
