"""A model's own code as part of a work directory: read, and held against what its container will have installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cogsmith import sources
from cogsmith.config.model import Model
from cogsmith.errors import Problem, ProblemsError
from cogsmith.sources.base import Resolved
from cogsmith.sources.custom_code import CustomCode
from cogsmith.sources.python_files import Needed
from cogsmith.workdir import pins

_BROUGHT_ALONG = frozenset(
    {"filelock", "fsspec", "huggingface_hub", "markupsafe", "mpmath", "networkx", "packaging", "psutil", "regex"}
    | {"setuptools", "sympy", "tqdm", "typing_extensions", "yaml"}
)
"""Modules of the packages that torch, transformers and accelerate require themselves."""

_OTHER_NAMES: Mapping[str, str] = {
    "attr": "attrs",
    "cv2": "opencv-python",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
"""Packages whose modules have another name, as far as that is commonly known."""


def read(model: Model, resolved: Resolved, cache: Path | None) -> CustomCode | None:
    """Return the model's own code, checked; None where it has none.

    Raises SourceError, or ProblemsError with everything that is wrong in the files, or with each import of a package
    that the container will not have.
    """
    code = sources.read_code(model, resolved, cache)
    if code is None or _may_bring_more(code, model):
        return code
    absent = _absent(code, model, resolved)
    if problems := [Problem(_message(item), _fix(item, code), item.path, item.line) for item in absent if item.surely]:
        raise ProblemsError("the model's own code", problems)
    return code


def doubts(code: CustomCode | None, model: Model, resolved: Resolved) -> Iterator[str]:
    """Yield a line for each import that may fail in the container: one that only some calls reach, for instance."""
    for item in _absent(code, model, resolved) if code else ():
        yield f"{model.name}: {item.path}, line {item.line} {_message(item)}"


def _message(item: Needed) -> str:
    return f"imports {item.name}, which nothing that the container installs is known to bring"


def _fix(item: Needed, code: CustomCode) -> str:
    if item.name in _modules(code):
        return f"write `from .{item.name} import`: the files are a package"
    package = _OTHER_NAMES.get(item.name, item.name)
    return f'add requirements = ["{package}==VERSION"] to the model, or import it in a try'


def _absent(code: CustomCode, model: Model, resolved: Resolved) -> Iterator[Needed]:
    """Yield what the code imports and nothing that will be installed is known to bring, each name once a file."""
    lines = pins.requirements(model, resolved.shape)
    installed = {canonicalize_name(Requirement(line).name) for line in lines}
    seen: set[tuple[str, str]] = set()
    for item in sorted(code.needed, key=lambda item: (not item.surely, item.path, item.line)):
        if item.name in _BROUGHT_ALONG or (item.path, item.name) in seen or installed & _distributions(item.name):
            continue
        seen.add((item.path, item.name))
        yield item


def _may_bring_more(code: CustomCode, model: Model) -> bool:
    """Whether some requirement of the model's own is for no import by name, so that it may be for any of the others."""
    imported = {name for item in code.needed for name in _distributions(item.name)}
    return any(canonicalize_name(Requirement(line).name) not in imported for line in model.requirements)


def _distributions(module: str) -> set[str]:
    """Return the packages that may bring a module: by its name, or by what is installed here."""
    names = [module, _OTHER_NAMES.get(module, module), *_installed_here().get(module, ())]
    return {canonicalize_name(name) for name in names}


@cache
def _installed_here() -> Mapping[str, list[str]]:
    return packages_distributions()


def _modules(code: CustomCode) -> set[str]:
    return {file.path.partition("/")[0].removesuffix(".py") for file in code.files}
