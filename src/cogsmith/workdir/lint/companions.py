"""The files beside the weights: model.json, push and the code that travels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cogsmith
from cogsmith import manifest
from cogsmith.errors import Problem, UserError
from cogsmith.manifest import Manifest
from cogsmith.workdir.places import stays_inside
from cogsmith.workdir.render import travelling_code


def check(folder: Path) -> Iterator[Problem]:
    """Yield the problems of model.json, push and the code that travels."""
    try:
        settings = manifest.read(folder)
    except UserError as error:
        there = (folder / manifest.FILE_NAME).exists()
        yield Problem(error.message if there else "missing", error.fix, manifest.FILE_NAME)
    else:
        yield from _checkpoint_outside(settings.checkpoint)
        yield from _missing_code(folder, settings)
    push = folder / "push"
    if not push.is_file():
        yield Problem("missing", "build this folder again", "push")
    elif not os.access(push, os.X_OK):
        yield Problem("not executable", "chmod +x push", "push")


def _checkpoint_outside(path: str) -> Iterator[Problem]:
    if not stays_inside(path):
        yield Problem(f"checkpoint {path!r} is outside", f'write "{manifest.CHECKPOINT}"', manifest.FILE_NAME)


def _missing_code(folder: Path, settings: Manifest) -> Iterator[Problem]:
    """Yield a problem where part of the code that runs in the container is gone."""
    if settings.cogsmith != cogsmith.__version__:
        # Another version's code may lie in other files.
        return
    missing = sorted(path for path, _ in travelling_code() if not (folder / path).is_file())
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield Problem(f"missing{more}", "build this folder again", missing[0])
