"""From what a user types to a work directory."""

from __future__ import annotations

from pathlib import Path

from cogsmith.errors import UserError
from cogsmith.workdir import places
from cogsmith.workdir.places import rendered

__all__ = ["find", "rendered", "shown"]


def find(name: str, root: Path = Path()) -> Path:
    """Return the work directory of the project at `root` called `name`, or the folder at that path.

    Raises UserError with what there is.
    """
    folder = places.find(name, root)
    if folder is None:
        raise UserError(f"there is no work directory {name!r}", fix=places.what_there_is(name, root))
    return folder


def shown(folder: Path) -> str:
    """The path as a user here would type it."""
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
