"""A model's own code: whole, only where model.json asks for it, and for the weights that lie beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cogsmith.errors import Problem, ProblemsError
from cogsmith.manifest import MODEL_CODE
from cogsmith.sources import custom_code
from cogsmith.workdir.lint import cog_yaml
from cogsmith.workdir.places import checkpoint_folder, readable_manifest


def check(folder: Path) -> Iterator[Problem]:
    """Yield the problems of the folder of the model's own code. Imports nothing of it."""
    settings = readable_manifest(folder)
    code = folder / MODEL_CODE
    if settings is None or (settings.code is None and not code.exists()):
        return
    if settings.code is None:
        yield Problem("there, and model.json has no code", "remove it, or build this folder again", MODEL_CODE)
        return
    files = {path.relative_to(code).as_posix(): path.read_bytes() for path in sorted(code.rglob("*.py"))}
    if not files:
        yield Problem("missing", "build this folder again", MODEL_CODE)
        return
    python = cog_yaml.python_version(cog_yaml.load(folder)) or cog_yaml.PYTHON_MINIMUM
    try:
        custom_code.checked(files, settings.code, _shape(folder), python=python)
    except ProblemsError as error:
        for problem in error.problems:
            yield replace(problem, where=f"{MODEL_CODE}/{problem.where}") if problem.where in files else problem


def _shape(folder: Path) -> dict[str, Any] | None:
    """Return config.json of the weights; None for one that cannot be read, which is another rule's business."""
    try:
        shape = json.loads((checkpoint_folder(folder) / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return shape if isinstance(shape, dict) else None
