"""From what a user types to a work directory, a checkpoint folder, or a place to write to."""

from __future__ import annotations

from pathlib import Path

from cogsmith.cli.console import ConsoleReporter
from cogsmith.config import uri
from cogsmith.config.findings import Refusal
from cogsmith.errors import UserError
from cogsmith.gateway import open_model
from cogsmith.workdir import places
from cogsmith.workdir.places import rendered

__all__ = ["find", "model_folder", "output_place", "rendered", "shown"]


def find(name: str, root: Path = Path()) -> Path:
    """Return the work directory of the project at `root` called `name`, or the folder at that path.

    Raises UserError with what there is.
    """
    folder = places.find(name, root)
    if folder is None:
        raise UserError(f"there is no work directory {name!r}", fix=places.what_there_is(name, root))
    return folder


def model_folder(name: str, root: Path = Path()) -> Path:
    """Return the folder to load a model from: see `open_model.model_folder`. Raises UserError."""
    return open_model.model_folder(name, root=root, reporter=ConsoleReporter())


def output_place(text: str) -> str:
    """Return the canonical URI of a folder to write to, as a user types it. Raises UserError."""
    try:
        return str(uri.parse_output(text).beneath(Path.cwd()))
    except Refusal as refusal:
        raise UserError(refusal.message, fix=refusal.fix) from None


def shown(folder: Path) -> str:
    """The path as a user here would type it."""
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
