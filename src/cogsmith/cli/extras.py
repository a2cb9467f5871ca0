"""Packages that only some work needs: asked for when it comes to that, installed into the project's own environment.

`./build` makes `.venv` and marks it as its own. There what is missing is installed at once; in an environment that
the user keeps, it stays an error that says what to install.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from packaging.requirements import Requirement

from cogsmith.cli.console import err
from cogsmith.errors import MissingExtra, MissingPackages, ProblemsError, UserError

_T = TypeVar("_T")

MARKER = ".made-by-cogsmith"


def with_extras(work: Callable[[], _T]) -> _T:
    """Do `work`; where it needs more packages and the environment is ours, install them and begin again."""
    installed: set[str] = set()
    while True:
        try:
            return work()
        except UserError as error:
            requirements = _lacking(error)
            if installed.issuperset(requirements) or not (Path(sys.prefix) / MARKER).exists():
                raise
            _install(requirements)
            installed.update(requirements)


def _lacking(error: UserError) -> Sequence[str]:
    """Return the requirements that `error` asks for, or that one of the problems which it lists asks for."""
    missing = error.__cause__ if isinstance(error, ProblemsError) else error
    if isinstance(missing, MissingPackages):
        return missing.requirements
    return pinned(missing.extra) if isinstance(missing, MissingExtra) else ()


def pinned(extras: str) -> list[str]:
    """Return the pinned requirements of comma-separated `extras`, as the package's own metadata has them."""
    declared = map(Requirement, importlib.metadata.requires("cogsmith") or [])
    return [
        f"{requirement.name}{requirement.specifier}"
        for requirement in declared
        for extra in extras.split(",")
        if requirement.marker and requirement.marker.evaluate({"extra": extra})
    ]


def _install(requirements: Sequence[str]) -> None:
    err.print(f"Installing once, into {sys.prefix}: {' '.join(requirements)}", markup=False)
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *requirements]
    if _run_showing_progress(command) != 0:
        raise UserError("the installation failed", fix="see pip's message above, then run the command again")
    importlib.invalidate_caches()


def _run_showing_progress(command: list[str]) -> int:
    """Run pip with its output on stderr: its bars on a terminal, elsewhere its lines but for the idle ones."""
    if sys.stderr.isatty():
        return subprocess.run(command, stdout=sys.stderr, check=False).returncode
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            if not line.startswith("Requirement already satisfied"):
                sys.stderr.write(line)
    return pip.returncode
