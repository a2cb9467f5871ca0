"""Where each engine runs: ours in this environment, LMQL in one that is made and kept, vLLM where it is installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import cogsmith
from cogsmith import config
from cogsmith.cache import atomic_folder, cache_root
from cogsmith.config.model import EXAMPLE
from cogsmith.sources.silent import Silent
from cogsmith.workdir.build import build
from engines.process import EngineFailed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUR_SOURCE = Path(cogsmith.__file__).parents[1]


def work_directory(checkpoint: Path | None, folder: Path) -> Path:
    """Build a work directory under `folder`: of `checkpoint`, or else of the example config's first model."""
    if checkpoint is None:
        text = (ROOT / EXAMPLE).read_text(encoding="utf-8")
    else:
        text = f'[models.{checkpoint.name.lower()}]\nsource = "{checkpoint.resolve()}"\ncog.gpu = false\n'
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    project = config.load(file, allow_placeholder=True)
    (built,) = build(project, [next(iter(project.models))], reporter=Silent())
    return built.folder


def lmql_python() -> Path:
    """Return the interpreter of an environment with what `lmql.txt` pins, made at first use. Raises EngineFailed."""
    pins = HERE / "lmql.txt"
    digest = hashlib.sha256(sys.version.encode() + pins.read_bytes()).hexdigest()[:12]
    folder = cache_root() / "benchmarks" / f"lmql-{digest}"
    if not folder.is_dir():
        sys.stderr.write(f"installing LMQL into {folder} (once; this takes minutes)\n")
        with atomic_folder(folder) as unfinished:
            _run(sys.executable, "-m", "venv", unfinished)
            _run(unfinished / "bin/python", "-m", "pip", "install", "--quiet", "--requirement", pins)
    return folder / "bin/python"


def python_of(name: str, vllm: Path | None) -> Path:
    """Return the interpreter for an engine. Raises EngineFailed where there is none."""
    if name == "lmql":
        return lmql_python()
    if name == "vllm":
        if vllm is None:
            raise EngineFailed("no environment of vLLM was named (--vllm PYTHON)")
        return vllm
    return Path(sys.executable)


def more_path(name: str) -> Path:
    """Return the folder that an engine's process imports from, beside its environment's own."""
    return OUR_SOURCE if name in ("ours", "cog") else HERE.parent


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for the work directory, on the disk that the caches are on: its weights are hard links."""
    cache_root().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="benchmark-", dir=cache_root())


def _run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise EngineFailed(f"{' '.join(map(str, command))} failed: {result.stderr[-500:]}")
