"""What is where in a work directory: names that several modules agree on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from cogsmith import manifest
from cogsmith.errors import UserError


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
