"""The finished Hugging Face folder, put where the user wants it too: a folder, or a place in an object store.

It is there whole or is no checkpoint: a folder by one exchange, a store's files with config.json last. What a build
has put somewhere is remembered in the cache, so that the next build does not move it again while it lies there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cogsmith.cache import cache_root
from cogsmith.config.model import OutputSettings, WeightsFile
from cogsmith.errors import UserError
from cogsmith.manifest import CHECKPOINT
from cogsmith.sources.base import Reporter
from cogsmith.sources.object_store import upload
from cogsmith.sources.stores.upload import occupied, stored_sizes
from cogsmith.sources.write_safetensors import stored_tensors, write_bin
from cogsmith.workdir import link, placed, swap
from cogsmith.workdir.lock import LockedFile
from cogsmith.workdir.placed import Placed
from cogsmith.workdir.plan import Plan

_LOCAL = "path:"

Finish = Callable[[Path], None]
"""What is still done to the folder before it goes to its place."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was put at `place`, a folder's path or a URI: bytes by relative path."""

    place: str
    files: Mapping[str, int]


def save(
    files: Mapping[str, Path],
    place: str,
    *,
    weights: WeightsFile = "safetensors",
    force: bool = False,
    reporter: Reporter,
    finish: Finish | None = None,
) -> Saved:
    """Put `files`, by relative POSIX path, at the canonical URI `place`: `path:/FOLDER`, or one of a store's folder.

    On this machine they are linked where that is possible. With the weights "bin", pytorch_model.bin is written in
    the place of safetensors. Raises UserError where something is there, unless `force`; then a folder is replaced as
    a whole, and of a store's folder what belongs to a checkpoint. Raises SourceError for what a store refuses.
    """

    def make(stage: Path) -> None:
        _stage(files, stage, weights, reporter)
        if finish:
            finish(stage)

    return save_made(make, place, force=force, reporter=reporter)


def save_made(make: Finish, place: str, *, force: bool = False, reporter: Reporter) -> Saved:
    """Put what `make` writes into an empty folder at the canonical URI `place`, as `save` does with files.

    Where `make` raises, nothing is there, and what was there is left as it was.
    """
    require_free(place, force=force)
    with _staging(place, force=force) as stage:
        make(stage)
        made = _sizes(stage)
        if not place.startswith(_LOCAL):
            upload(stage, place, force=force, reporter=reporter)
    return Saved(_shown(place), made)


def staging_folder(place: str) -> Path:
    """Return the folder, which may not exist yet, on whose disk files lie before they are at `place`."""
    return _folder(place).absolute().parent if place.startswith(_LOCAL) else cache_root()


def require_free(place: str, *, force: bool) -> None:
    """Raise UserError where something is at `place` already, unless `force` says that it may be replaced."""
    if place.startswith(_LOCAL):
        _require_free_folder(_folder(place), force=force)
    elif not force and (there := stored_sizes(place)):
        raise occupied(place, there)


def require_deliverable(item: Plan, cache: Path | None = None) -> None:
    """Raise UserError where the coming build could not put its folder at `output.uri`: before it does any work."""
    settings, locked = item.model.output, item.locked
    if settings is None:
        return
    same_weights = locked is not None and (locked.source, locked.revision) == (item.entry.source, item.entry.revision)
    if not (same_weights and _is_delivered(settings, item.entry.files, cache)):
        require_free(settings.uri, force=settings.force)


def deliver(item: Plan, files: Sequence[LockedFile], reporter: Reporter, cache: Path | None = None) -> Saved | None:
    """Put the checkpoint of a finished work directory at `output.uri`; None where there is no such key.

    What lies there as the last build put it is left alone. Raises as `save` does.
    """
    settings = item.model.output
    if settings is None or _is_delivered(settings, files, cache):
        return None
    places = {file.path: item.folder / CHECKPOINT / file.path for file in files}
    saved = save(places, settings.uri, weights=settings.format, force=settings.force, reporter=reporter)
    placed.remember(_marker(settings, cache), Placed(placed.identity_of(files), dict(saved.files)))
    return saved


def _is_delivered(settings: OutputSettings, files: Sequence[LockedFile], cache: Path | None) -> bool:
    """Whether the checkpoint of `files` was put there, and what lies there has the same names and sizes."""
    note = placed.recall(_marker(settings, cache))
    if note is None or note.identity != placed.identity_of(files):
        return False
    return note.files.items() <= sizes_at(settings.uri).items()


def sizes_at(place: str) -> dict[str, int]:
    """Return what lies at the canonical URI `place`: bytes by relative path. Raises SourceError as a store does."""
    return _sizes(_folder(place)) if place.startswith(_LOCAL) else dict(stored_sizes(place))


def _marker(settings: OutputSettings, cache: Path | None) -> Path:
    return placed.marker("outputs", f"{settings.uri}\0{settings.format}", cache)


@contextmanager
def _staging(place: str, *, force: bool) -> Iterator[Path]:
    """Give an empty folder: what will be at `place` if that is a folder, else one that goes away."""
    if place.startswith(_LOCAL):
        with writing(_folder(place), force=force) as folder:
            yield folder
    else:
        cache_root().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".output.", dir=cache_root()) as name:
            yield Path(name)


@contextmanager
def writing(target: Path, *, force: bool) -> Iterator[Path]:
    """Give an empty folder beside `target`, which takes its place on success and is removed on failure.

    An empty folder may be there; anything else is refused with UserError, unless `force` says that it may go.
    """
    _require_free_folder(target, force=force)
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = swap.temporary_folder(target)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        swap.replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_free_folder(target: Path, *, force: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        if not force:
            raise UserError(f"{target} is there and is no folder", fix="name another place, or say --force")
        return
    if not force and (there := [path.name for path in target.iterdir()]):
        raise occupied(str(target), there)
    if target.resolve() in (Path.home(), *Path.home().parents, Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{target} would be replaced with all that is in it", fix="name a folder of the model's own")


def _stage(files: Mapping[str, Path], stage: Path, weights: WeightsFile, reporter: Reporter) -> None:
    with reporter.task("Placing files", sum(file.stat().st_size for file in files.values())) as task:
        for path, file in files.items():
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            link.place(file, stage / path)
            task.advance(file.stat().st_size)
    if weights == "bin":
        _turn_into_bin(stage)


def _turn_into_bin(folder: Path) -> None:
    """Write the weights as pytorch_model.bin and drop the safetensors. All of them are in memory at once."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        return
    write_bin(folder, [tensor for shard in shards for tensor in stored_tensors(shard)])
    for path in [*shards, *folder.glob("*.safetensors.index.json")]:
        path.unlink()


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _folder(place: str) -> Path:
    return Path(place.removeprefix(_LOCAL))


def _shown(place: str) -> str:
    return place.removeprefix(_LOCAL)
