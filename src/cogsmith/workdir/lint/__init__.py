"""Rules for a finished work directory: what Cog rejects, and what it accepts and then silently does wrong.

Each module knows one area. All of them run, so that every problem shows at once.
"""

from __future__ import annotations

from pathlib import Path

from cogsmith.errors import Problem
from cogsmith.workdir.lint import (
    checkpoint,
    cog_yaml,
    companions,
    ignored,
    locked,
    model_code,
    pins,
    predictor_code,
    secrets,
)


def check(folder: Path) -> list[Problem]:
    """Return every problem of the work directory `folder`, each with its fix. Imports and runs nothing in it."""
    return [
        *cog_yaml.check(folder),
        *predictor_code.check(folder),
        *pins.check(folder),
        *companions.check(folder),
        *model_code.check(folder),
        *ignored.check(folder),
        *checkpoint.check(folder),
        *locked.check(folder),
        *secrets.check(folder),
    ]
