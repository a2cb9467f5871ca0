"""The weights: complete, readable, safe to load, and in a folder that Cog can put into an image of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cogsmith.errors import Problem, SourceError
from cogsmith.sources.safetensors_file import read_header, read_index
from cogsmith.workdir.places import checkpoint_folder, readable_manifest

_CODE = (".py", ".ipynb")
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_INDEX = "model.safetensors.index.json"


def check(folder: Path) -> Iterator[Problem]:
    """Yield the problems of the checkpoint folder. Reads headers, never weights."""
    weights = checkpoint_folder(folder)
    if not weights.is_dir():
        yield Problem("missing", "build this folder again", weights.name)
        return
    settings = readable_manifest(folder)
    allow_pickle = settings is not None and settings.allow_pickle
    tensors: dict[str, set[str]] = {}
    for path in sorted(weights.rglob("*")):
        where = path.relative_to(folder).as_posix()
        fault = _fault(path, allow_pickle)
        if fault:
            yield Problem(*fault, where)
        elif path.suffix == ".safetensors":
            try:
                tensors[path.relative_to(weights).as_posix()] = {tensor.name for tensor in read_header(path)}
            except SourceError as error:
                yield Problem("not a sound safetensors file", error.fix, where)
                tensors[path.relative_to(weights).as_posix()] = set()
    if not (weights / "config.json").is_file():
        yield Problem("config.json is missing", "use a source in the Hugging Face format", weights.name)
    if (weights / _INDEX).is_file():
        yield from _index_problems(weights / _INDEX, tensors, folder)
    elif not tensors and not (allow_pickle and any(path.suffix in _PICKLES for path in weights.rglob("*"))):
        yield Problem("holds no weights", "use a source with safetensors files", weights.name)


def _fault(path: Path, allow_pickle: bool) -> tuple[str, str] | None:
    if path.is_symlink():
        return "a symbolic link, which Cog does not follow", "put the file itself there"
    if path.suffix in _CODE:
        return "code among the weights, for which Cog drops --separate-weights silently", "remove it"
    if path.suffix in _PICKLES and not allow_pickle:
        return "a pickle, which can run code when it is loaded", "use safetensors, or allow_pickle in config.toml"
    return None


def _index_problems(index: Path, tensors: dict[str, set[str]], folder: Path) -> Iterator[Problem]:
    """Yield a problem for each file that the index names and that does not hold what it should."""
    where = index.relative_to(folder).as_posix()
    try:
        placed = read_index(index)
    except SourceError as error:
        yield Problem("not an index of tensors", error.fix, where)
        return
    for file in sorted(set(placed.values())):
        missing = sorted(name for name, owner in placed.items() if owner == file and name not in tensors.get(file, ()))
        if file not in tensors:
            yield Problem(f"names {file}, which is missing", "fetch the checkpoint again", where)
        elif missing and tensors[file]:
            yield Problem(f"{file} lacks tensor {missing[0]}", "fetch the checkpoint again", where)
