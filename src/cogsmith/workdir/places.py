"""What is where in a work directory: names that several modules agree on."""

from __future__ import annotations

import difflib
from pathlib import Path, PurePosixPath

from cogsmith import manifest
from cogsmith.config.model import WORK
from cogsmith.errors import UserError

MODULE_TREE = "model.txt"
"""What the command line adds to a work directory, for people: no part of what is rendered."""


def find(name: str, root: Path) -> Path | None:
    """Return the work directory `name` of the project at `root`, else the one at that path; None if neither is."""
    candidates = (root / WORK / name, Path(name))
    return next((folder.absolute() for folder in candidates if (folder / "cog.yaml").is_file()), None)


def rendered(root: Path) -> list[str]:
    """Names of all work directories under `work/` of the project at `root`."""
    return sorted(path.parent.name for path in (root / WORK).glob("[!.]*/cog.yaml"))


def what_there_is(name: str, root: Path) -> str:
    """For a message about `name`, which is no work directory: the one that was perhaps meant, and all there are."""
    built = rendered(root)
    nearest = difflib.get_close_matches(name, built, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return hint + (f"work/ holds {', '.join(built)}" if built else "work/ holds none; run ./build")


def checkpoint_folder(folder: Path) -> Path:
    """Return where model.json says the weights are; the usual place where it says nothing usable."""
    settings = readable_manifest(folder)
    name = settings.checkpoint if settings else manifest.CHECKPOINT
    return folder / (name if stays_inside(name) else manifest.CHECKPOINT)


def readable_manifest(folder: Path) -> manifest.Manifest | None:
    """Return what model.json says; None where there is none, or none that can be read."""
    try:
        return manifest.read(folder)
    except UserError:
        return None


def stays_inside(path: str) -> bool:
    """Whether the relative POSIX `path` names something below the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and not path.startswith("/")
