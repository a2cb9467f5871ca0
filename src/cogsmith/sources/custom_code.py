"""A model's own modelling files: taken only when they are named, to the byte, and looked at without being run.

They come from this machine (`code.path`) or from where the weights are (`code.files`, at the same revision), and go
into a folder beside the weights. Nothing of them is imported here: what they do is for the container alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogsmith.cache import write_atomically
from cogsmith.config.model import CodeSettings, Model
from cogsmith.errors import Problem, ProblemsError, SourceError
from cogsmith.manifest import Code
from cogsmith.sources.base import Location
from cogsmith.sources.python_files import Needed, Package, literal
from cogsmith.sources.selection import CONFIG
from cogsmith.sources.silent import Silent

SUFFIX = ".py"
_SUBJECT = "the model's own code"


@dataclass(frozen=True, slots=True)
class CodeFile:
    """One Python file: its relative POSIX `path` in the package, and its bytes."""

    path: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class CustomCode:
    """Files that define a model's classes, and what they are called. `needed` are the packages that they import."""

    classes: Code
    files: tuple[CodeFile, ...]
    needed: tuple[Needed, ...] = ()


def read(model: Model, shape: Mapping[str, Any] | None, open_location: Callable[[], Location]) -> CustomCode | None:
    """Return the Python files that `model` names, checked; None where it names none.

    `shape` is the config.json of its weights, None where that is not known yet; `open_location` gives where the weights
    are, at the revision that is built. Raises SourceError for files that are not there, and ProblemsError with
    everything that is wrong in them.
    """
    settings = model.code
    if settings is None:
        return None
    if model.quant and model.quant.at == "build":
        raise SourceError(
            "a model with code of its own cannot be quantised at build, where that code would have to run",
            fix='write quant.at = "load"',
        )
    contents = _local(settings.path, settings.files) if settings.path else _remote(settings.files, open_location)
    major, minor = map(int, model.cog.python.split("."))
    return checked(contents, _classes(settings, contents), shape, python=(major, minor))


def checked(
    files: Mapping[str, bytes], classes: Code, shape: Mapping[str, Any] | None, *, python: tuple[int, int]
) -> CustomCode:
    """Return `files` as the code of `classes`. Raises ProblemsError with all that can be told without running them."""
    package = Package(files, python)
    config = package.require_class(classes.config, "code.config")
    package.require_class(classes.model, "code.model")
    needed = package.needed([classes.config, classes.model])
    problems = package.problems
    stated = literal(config, "model_type") if config else None
    if stated and stated[0] != classes.model_type:
        message = f"{classes.config} has model_type = {stated[0]!r} (line {stated[1]}), not {classes.model_type!r}"
        problems.append(Problem(message, f'write code.model_type = "{stated[0]}"', "code.model_type"))
    if shape is not None and shape.get("model_type") != classes.model_type:
        message = f"{CONFIG} of the weights has model_type {shape.get('model_type')!r}, not {classes.model_type!r}"
        problems.append(Problem(message, f"write the one of {CONFIG}, here and in {classes.config}", "code.model_type"))
    if problems:
        raise ProblemsError(_SUBJECT, problems)
    return CustomCode(classes, tuple(CodeFile(*item) for item in sorted(files.items())), tuple(needed))


def write_auto_map(folder: Path, code: CustomCode) -> None:
    """Make the Hugging Face folder `folder` one that brings its own code: the files, and `auto_map` in config.json.

    It then loads with `trust_remote_code=True`, and not without. Raises SourceError for files that transformers would
    not find there (it looks beside config.json only), or would not load: nothing is written then.
    """
    deep = sorted(file.path for file in code.files if "/" in file.path)
    if deep:
        raise SourceError(
            f"a Hugging Face folder holds its Python files beside config.json, and {', '.join(deep)} would be below",
            fix="put all files into one folder",
        )
    if not all(name.count(".") == 1 for name in (code.classes.config, code.classes.model)):
        raise SourceError(
            f"{code.classes.config} and {code.classes.model} are not both of the form MODULE.CLASS, as auto_map has it",
            fix="name the file that defines each class",
        )
    existing = [file.path for file in code.files if (folder / file.path).exists()]
    if existing:
        raise SourceError(f"{folder} has {', '.join(existing)} already", fix="name another folder")
    path = folder / CONFIG
    config = json.loads(path.read_bytes())
    config["auto_map"] = {
        **config.get("auto_map", {}),
        "AutoConfig": code.classes.config,
        "AutoModelForCausalLM": code.classes.model,
    }
    for file in code.files:
        (folder / file.path).write_bytes(file.content)
    # Not in place: the file may be a link to one in a cache.
    write_atomically(path, json.dumps(config, indent=2).encode() + b"\n")


def _classes(settings: CodeSettings, files: Iterable[str]) -> Code:
    """Return the classes by their whole names: with a single file, CLASS alone will do."""
    paths = list(files)
    module = paths[0].removesuffix(SUFFIX).replace("/", ".") if len(paths) == 1 else None
    config, model = (
        name if "." in name or module is None else f"{module}.{name}" for name in (settings.config, settings.model)
    )
    return Code(model_type=settings.model_type, config=config, model=model)


def _local(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Read a Python file, or those of a folder: `names`, or all that are not hidden. Raises SourceError."""
    if path.is_file() and path.suffix == SUFFIX:
        return {path.name: _read(path)}
    if not path.is_dir():
        state = "is no Python file" if path.exists() else "does not exist"
        raise SourceError(f"{path} {state}", fix="correct code.path, relative to config.toml's folder")
    found = list(names) or [
        file.relative_to(path).as_posix()
        for file in sorted(path.rglob(f"*{SUFFIX}"))
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not found:
        raise SourceError(f"{path} holds no Python files", fix="correct code.path")
    return _contents(path, found)


def _contents(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    root = folder.resolve()
    contents: dict[str, bytes] = {}
    faults: list[str] = []
    for name in names:
        real = (folder / name).resolve()
        if not real.is_file() or not name.endswith(SUFFIX):
            faults.append(f"{folder / name} is no Python file")
        elif not real.is_relative_to(root):
            faults.append(f"{folder / name} is outside the folder: {real}")
        else:
            contents[name] = _read(real)
    if faults:
        raise SourceError("\n".join(faults), fix="name Python files of that folder, and put files in place of links")
    return contents


def _remote(names: Iterable[str], open_location: Callable[[], Location]) -> dict[str, bytes]:
    """Fetch the files `names` from where the weights are. Raises SourceError, naming all that are not there."""
    location = open_location()
    revision, listed = location.list()
    there = {file.path: file for file in listed if file.path.endswith(SUFFIX)}
    missing = [name for name in names if name not in there]
    if missing:
        raise SourceError(
            f"{location.uri} has no {', '.join(missing)}",
            fix=f"its Python files are {', '.join(sorted(there)) or 'none'}; code.path names files on this machine",
        )
    places = location.fetch(revision, [there[name] for name in names], Silent())
    return {name: _read(places[name]) for name in names}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from None
