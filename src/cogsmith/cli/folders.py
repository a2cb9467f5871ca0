"""From what a user types to a work directory, a checkpoint folder, or a place to write to."""

from __future__ import annotations

from pathlib import Path

from cogsmith.cli.console import ConsoleReporter
from cogsmith.config import uri
from cogsmith.config.findings import Refusal
from cogsmith.errors import UserError
from cogsmith.gateway.open_model import open_models
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
    """Return the folder of a model: a work directory, by name or path, or a checkpoint folder as it is.

    A GGUF file or a repository on the Hub becomes a work directory in the cache, on first use. Raises UserError.
    """
    if found := places.find(name, root):
        return found
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return path.absolute()
    return open_models([name], root=root, reporter=ConsoleReporter())[0]


def output_place(text: str) -> str:
    """Return the canonical URI of a folder to write to, as a user types it. Raises UserError."""
    try:
        return str(uri.parse_output(text).beneath(Path.cwd()))
    except Refusal as refusal:
        raise UserError(refusal.message, fix=refusal.fix) from None


def shown(folder: Path) -> str:
    """The path as a user here would type it."""
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
