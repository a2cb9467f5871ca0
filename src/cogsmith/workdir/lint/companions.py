"""The files beside code and weights: model.json and push."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cogsmith import manifest
from cogsmith.errors import Problem
from cogsmith.workdir.places import stays_inside


def check(folder: Path) -> Iterator[Problem]:
    """Yield the problems of model.json and push."""
    try:
        checkpoint = manifest.read(folder).checkpoint
        if not stays_inside(checkpoint):
            yield Problem(f"checkpoint {checkpoint!r} is outside", f'write "{manifest.CHECKPOINT}"', manifest.FILE_NAME)
    except OSError:
        yield Problem("missing", "build this folder again", manifest.FILE_NAME)
    except msgspec.DecodeError as error:
        yield Problem(str(error), "build this folder again", manifest.FILE_NAME)
    push = folder / "push"
    if not push.is_file():
        yield Problem("missing", "build this folder again", "push")
    elif not os.access(push, os.X_OK):
        yield Problem("not executable", "chmod +x push", "push")
