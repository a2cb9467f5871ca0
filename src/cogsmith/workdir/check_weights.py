"""All of a checkpoint, byte by byte: `cogsmith check --weights`.

`lint` looks at names, sizes, headers and remembered digests, and so takes no time. Here every file is read and hashed
anew, every tensor is found in the index and in the model that config.json names, and the tokenizer is tried.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cogsmith.errors import MissingExtra, Problem, SourceError, UserError
from cogsmith.manifest import CAUSAL_LM
from cogsmith.sources.base import Reporter
from cogsmith.sources.hashing import sha256_file
from cogsmith.sources.safetensors_file import read_header, read_index
from cogsmith.sources.selection import CONFIG, SAFETENSORS, holds_vocabulary
from cogsmith.sources.tokenizer_files import check_tokenizer
from cogsmith.sources.verify import verify_folder
from cogsmith.workdir import lock
from cogsmith.workdir.places import checkpoint_folder, readable_manifest

_PACKAGES = ("safetensors", "tokenizers", "torch", "transformers")
_INDEX = SAFETENSORS[1]
_BUILD = "build this folder again"


@dataclass(slots=True)
class Account:
    """What was read: files, their bytes, the tensors in them; and everything that is wrong."""

    files: int = 0
    size: int = 0
    tensors: int = 0
    problems: list[Problem] = field(default_factory=list)


def check_weights(folder: Path, reporter: Reporter) -> Account:
    """Read the whole checkpoint of the work directory `folder`, or `folder` itself where it is a checkpoint.

    A work directory's files must be those of the project's lock, no more and no fewer. Every problem is in the answer.
    Raises MissingExtra without the packages that make a model.
    """
    if not all(importlib.util.find_spec(package) for package in _PACKAGES):
        raise MissingExtra("engine", "Checking weights against the model")
    is_checkpoint = not (folder / "cog.yaml").is_file() and (folder / CONFIG).is_file()
    weights = folder if is_checkpoint else checkpoint_folder(folder)
    paths = sorted(path for path in weights.rglob("*") if path.is_file())
    account = Account(files=len(paths), size=sum(path.stat().st_size for path in paths))
    found = account.problems
    if is_checkpoint:
        reporter.note(f"{folder.name}: a checkpoint that no {lock.FILE_NAME} knows, so there is no digest to compare")
    else:
        found += _altered(folder, weights, paths, reporter)
    tensors = _tensors(folder, weights, found)
    account.tensors = sum(map(len, tensors.values()))
    if _INDEX in {path.relative_to(weights).as_posix() for path in paths}:
        found += _index_problems(weights / _INDEX, tensors, folder)
    settings = readable_manifest(folder)
    has_code = settings is not None and settings.code is not None
    if not found and paths:
        task = CAUSAL_LM if settings is None else settings.task
        found += _problem_of(
            folder, weights, lambda: verify_folder(weights, reporter=reporter, own_code=has_code, task=task)
        )
    if holds_vocabulary(path.name for path in paths):
        found += _problem_of(folder, weights, lambda: check_tokenizer(weights))
    return account


def _altered(folder: Path, weights: Path, paths: list[Path], reporter: Reporter) -> Iterator[Problem]:
    """Yield a problem for each file that is not as the lock says, by its bytes, and for each that it does not name."""
    try:
        entry = lock.entry_of(folder)
    except UserError as error:
        yield Problem(error.message, error.fix, lock.FILE_NAME)
        return
    if entry is None:
        yield Problem(
            "not in the lock, so that no digest is known", "build it, or check it in its project", folder.name
        )
        return
    known = {weights / file.path: file for file in entry.files}
    # Digests are remembered in a cache; this one is empty, so that every byte is read.
    with tempfile.TemporaryDirectory() as empty:
        for path, file in known.items():
            if not path.is_file():
                yield Problem("missing", _BUILD, _shown(path, folder))
            elif path.stat().st_size != file.size or sha256_file(path, reporter, cache=Path(empty)) != file.sha256:
                message = f"not what {lock.FILE_NAME} says: altered since it was built"
                yield Problem(message, "build again", _shown(path, folder))
    for path in paths:
        if path not in known:
            yield Problem(f"not in {lock.FILE_NAME}: nothing that was built", "remove it", _shown(path, folder))


def _tensors(folder: Path, weights: Path, found: list[Problem]) -> dict[str, set[str]]:
    """Return the names of the tensors in each safetensors file; add a problem to `found` for an unsound one."""
    tensors: dict[str, set[str]] = {}
    for path in sorted(weights.rglob("*.safetensors")):
        try:
            names = {tensor.name for tensor in read_header(path)}
        except UserError as error:
            found.append(Problem("not a sound safetensors file", error.fix, _shown(path, folder)))
        else:
            tensors[path.relative_to(weights).as_posix()] = names
    return tensors


def _index_problems(index: Path, tensors: Mapping[str, set[str]], folder: Path) -> Iterator[Problem]:
    """Yield a problem for each tensor that is not where the index says, and for each that it does not name."""
    where, fix = _shown(index, folder), "fetch the checkpoint again"
    try:
        placed = read_index(index)
    except SourceError as error:
        yield Problem("not an index of tensors", error.fix, where)
        return
    for file in sorted(set(placed.values()) | tensors.keys()):
        named = {name for name, owner in placed.items() if owner == file}
        if file not in tensors:
            if not (index.parent / file).is_file():
                yield Problem(f"names {file}, which is missing", fix, where)
        elif missing := sorted(named - tensors[file]):
            yield Problem(f"{file} lacks tensor {missing[0]}", fix, where)
        if extra := sorted(tensors.get(file, set()) - named):
            yield Problem(f"does not name tensor {extra[0]} of {file}", fix, where)


def _problem_of(folder: Path, weights: Path, check: Any) -> Iterator[Problem]:
    """Yield what `check` raises, as a problem of the checkpoint."""
    try:
        check()
    except MissingExtra:
        raise
    except UserError as error:
        yield Problem(error.message, error.fix, _shown(weights, folder))


def _shown(path: Path, folder: Path) -> str:
    return folder.name if path == folder else path.relative_to(folder).as_posix()
