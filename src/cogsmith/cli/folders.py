"""From what a user types to a work directory."""

from __future__ import annotations

import difflib
from pathlib import Path

from cogsmith.config.model import WORK
from cogsmith.errors import UserError


def find(name: str, root: Path = Path()) -> Path:
    """Return the work directory of the project at `root` called `name`, or the folder at that path.

    Raises UserError with what there is.
    """
    for folder in (root / WORK / name, Path(name)):
        if (folder / "cog.yaml").is_file():
            return folder.absolute()
    built = rendered(root)
    nearest = difflib.get_close_matches(name, built, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    there = f"work/ holds {', '.join(built)}" if built else "work/ holds none; run ./build"
    raise UserError(f"there is no work directory {name!r}", fix=f"{hint}{there}")


def rendered(root: Path = Path()) -> list[str]:
    """Names of all work directories under `work/` of the project at `root`."""
    return sorted(path.parent.name for path in (root / WORK).glob("[!.]*/cog.yaml"))


def shown(folder: Path) -> str:
    """The path as a user here would type it."""
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
