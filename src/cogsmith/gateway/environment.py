"""The environment that a work directory's image would give its server, on this machine.

`cog` reads its settings from cog.yaml when it builds an image and bakes them into the image's environment; the server
itself never reads that file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import yaml

from cogsmith import manifest
from cogsmith.errors import MissingExtra, MissingPackages, ServeError, UserError


def environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for a server of the work directory `folder`; those in `extra` win over all others.

    Raises ServeError for a folder that cannot be served, MissingExtra and MissingPackages for packages that the image
    would have and this machine lacks.
    """
    if not (folder / "cog.yaml").is_file():
        raise ServeError(f"{folder} is not a work directory: it has no cog.yaml", fix="run ./build first")
    _require_packages(folder)
    return {
        # Waiting threads that spin take a shared machine's cores from the ones that work.
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        **_stated(folder),
        # Cog starts its worker as plain "python".
        "PATH": _before(Path(sys.executable).parent, os.environ.get("PATH")),
        # The work directory's own copy of the engine must win over ours.
        "PYTHONPATH": _before(folder, os.environ.get("PYTHONPATH")),
        "LOG_FORMAT": "console",
        **(extra or {}),
    }


def _stated(folder: Path) -> dict[str, str]:
    """What cog.yaml and model.json say."""
    try:
        settings = yaml.safe_load((folder / "cog.yaml").read_text(encoding="utf-8"))
        return {
            **dict(line.split("=", 1) for line in settings.get("environment", [])),
            "COG_PREDICT_TYPE_STUB": str(settings["run"]),
            "COG_MAX_CONCURRENCY": str(manifest.read(folder).concurrency),
        }
    except (OSError, ValueError, KeyError, AttributeError, yaml.YAMLError, UserError) as error:
        raise ServeError(
            f"{folder} cannot be served: {error}", fix="`cogsmith check` says what is wrong; ./build makes it anew"
        ) from error


def _require_packages(folder: Path) -> None:
    if not _is_installed("coglet"):
        raise MissingExtra("engine", "Running a model on this machine")
    file = folder / "requirements.txt"
    lines = file.read_text(encoding="utf-8").split() if file.is_file() else []
    if missing := [line for line in lines if not _is_installed(line.partition("==")[0])]:
        raise MissingPackages(missing, f"Running {folder.name} on this machine")


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package.partition("[")[0])
    except metadata.PackageNotFoundError:
        return False
    return True


def _before(first: Path, rest: str | None) -> str:
    """A search path that looks into `first` before the others."""
    return os.pathsep.join([str(first), *([rest] if rest else [])])
