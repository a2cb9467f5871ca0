"""cog.yaml: the keys that Cog knows, their types, and the combinations that break a build.

The command line ignores unknown keys without a word, so a misspelt one is a problem here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cogsmith.errors import Problem

FILE = "cog.yaml"
PYTHON_MINIMUM = (3, 10)

_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return value is None or isinstance(value, list)


def _is_texts(value: Any) -> bool:
    return _is_list(value) and all(isinstance(item, str) for item in value or ())


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_commands(value: Any) -> bool:
    return _is_list(value) and all(
        isinstance(item, str) or (isinstance(item, dict) and isinstance(item.get("command"), str))
        for item in value or ()
    )


_TOP: Mapping[str, tuple[_Check, str]] = {
    "build": (_is_mapping, "a mapping"),
    "image": (_is_text, "a string"),
    "model": (_is_text, "a string"),
    "run": (_is_text, "a string"),
    "predict": (_is_text, "a string"),
    "train": (_is_text, "a string"),
    "concurrency": (_is_mapping, "a mapping"),
    "environment": (_is_texts, "a list of NAME=value strings"),
    "weights": (_is_list, "a list"),
}
_BUILD: Mapping[str, tuple[_Check, str]] = {
    "gpu": (_is_flag, "true or false"),
    "cuda": (_is_text, "a string in quotes"),
    "cudnn": (_is_text, "a string in quotes"),
    # Cog also takes a number, and reads 3.10 as 3.1.
    "python_version": (_is_text, "a string in quotes"),
    "python_requirements": (_is_text, "a string"),
    "python_packages": (_is_texts, "a list of strings"),
    "system_packages": (_is_texts, "a list of strings"),
    "run": (_is_commands, "a list of commands"),
    "pre_install": (_is_texts, "a list of strings"),
    "sdk_version": (_is_text, "a string in quotes"),
}
_DEPRECATED = {
    "predict": "run",
    "train": "a model of its own",
    "concurrency": "@cog.concurrent in predict.py",
    "build.python_packages": "python_requirements",
    "build.pre_install": "build.run",
}
_RESERVED_NAMES = (
    "PATH",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONUNBUFFERED",
    "LIBRARY_PATH",
    "HF_ENDPOINT",
    "HF_HUB_ENABLE_HF_TRANSFER",
)
_RESERVED_PREFIXES = ("R8_", "REPLICATE_", "CUDA_", "NVIDIA_", "NV_", "PGET_", "KUBERNETES_")
_ENVIRONMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def load(folder: Path) -> dict[str, Any]:
    """Return cog.yaml's mapping; an empty one where there is none that can be read, which `check` reports."""
    try:
        content = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def build_section(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `build` mapping, empty where there is none."""
    section = config.get("build")
    return section if isinstance(section, dict) else {}


def python_version(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return `build.python_version` as (major, minor); None where it is not a version."""
    match = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", str(build_section(config).get("python_version")))
    return (int(match[1]), int(match[2])) if match else None


def check(folder: Path) -> Iterator[Problem]:
    """Yield the problems of cog.yaml."""
    config = load(folder)
    if not config:
        yield _problem(None, "missing, empty or not a YAML mapping", "build this folder again")
        return
    for key, message, fix in (
        *_key_problems("", config, _TOP),
        *_key_problems("build.", build_section(config), _BUILD),
        *_reference_problems(folder, config),
        *_exclusion_problems(config),
        *_build_problems(folder, build_section(config)),
        *_environment_problems(config.get("environment")),
    ):
        yield _problem(key, message, fix)


_Found = Iterator[tuple[str, str, str]]


def _problem(key: str | None, message: str, fix: str) -> Problem:
    return Problem(message, fix, where=f"{FILE}: {key}" if key else FILE)


def _key_problems(prefix: str, section: Mapping[str, Any], known: Mapping[str, tuple[_Check, str]]) -> _Found:
    for key, value in section.items():
        if key not in known:
            yield f"{prefix}{key}", "Cog does not know this key", f"remove it, or use one of {', '.join(known)}"
            continue
        accepts, expected = known[key]
        if not accepts(value):
            yield f"{prefix}{key}", f"{value!r} is not {expected}", f"write {expected}"
        if f"{prefix}{key}" in _DEPRECATED:
            yield f"{prefix}{key}", "deprecated in Cog", f"use {_DEPRECATED[f'{prefix}{key}']} instead"


def _reference_problems(folder: Path, config: Mapping[str, Any]) -> _Found:
    reference = config.get("run")
    if reference is None and "predict" not in config:
        yield "run", "missing", 'write run: "predict.py:Predictor"'
    if not isinstance(reference, str):
        return
    file, separator, name = reference.partition(".py:")
    if not separator or not name:
        yield "run", f"{reference!r} names no file and class", 'write run: "predict.py:Predictor"'
    elif not (folder / f"{file}.py").is_file():
        yield "run", f"{file}.py is not in this folder", "build this folder again"


def _exclusion_problems(config: Mapping[str, Any]) -> _Found:
    if "run" in config and "predict" in config:
        yield "run", "stands beside predict, which Cog refuses", "remove predict"
    if "image" in config and "model" in config:
        yield "image", "stands beside model, which Cog refuses", "remove one of the two"
    if "weights" in config and "model" not in config:
        yield "weights", "needs model", "name the repository with model, or keep the weights in checkpoints/"


def _build_problems(folder: Path, build: Mapping[str, Any]) -> _Found:
    yield from _python_problems(build)
    cuda = build.get("cuda")
    if build.get("gpu") is True and cuda is None:
        fix = "set cog.cuda in config.toml"
        yield "build.cuda", "missing with gpu: true, where Cog may choose CUDA 11.8 or refuse a new torch", fix
    if build.get("gpu") is not True and cuda is not None:
        yield "build.cuda", "set without gpu: true, where Cog still takes a CUDA base image", "remove cuda"
    if isinstance(cuda, str) and not re.fullmatch(r"\d+\.\d+(\.\d+)?", cuda):
        yield "build.cuda", f"{cuda!r} has no minor version", 'write it like "13.0"'
    requirements = build.get("python_requirements")
    if isinstance(requirements, str) and not (folder / requirements).is_file():
        yield "build.python_requirements", f"{requirements} is not in this folder", "build this folder again"


def _python_problems(build: Mapping[str, Any]) -> _Found:
    version = python_version({"build": build})
    if "python_version" not in build:
        yield "build.python_version", "missing, and Cog requires it", 'write python_version: "3.11"'
    elif isinstance(build["python_version"], str) and version is None:
        yield "build.python_version", f"{build['python_version']!r} is not a version", 'write it like "3.11"'
    elif version and version < PYTHON_MINIMUM:
        yield "build.python_version", f"{build['python_version']} is older than Cog's minimum 3.10", 'write "3.11"'


def _environment_problems(environment: Any) -> _Found:
    for line in environment or () if _is_texts(environment) else ():
        match = _ENVIRONMENT.fullmatch(line)
        name = match[1] if match else ""
        if match is None:
            yield "environment", "an entry is not NAME=value", "write each as NAME=value"
        elif name in _RESERVED_NAMES or name.startswith(_RESERVED_PREFIXES):
            yield "environment", f"{name} is reserved by the platform", "remove it"
        elif re.search(r"\s", match[2]):
            yield "environment", f"the value of {name} has a space, which breaks the Dockerfile", "use no spaces"
