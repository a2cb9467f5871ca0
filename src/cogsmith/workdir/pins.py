"""The versions that a container installs. pyproject.toml is the one place where they are written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cogsmith
from cogsmith.config.model import Model
from cogsmith.config.rules import exact_version
from cogsmith.errors import InternalError

_EVERY_CONTAINER = (
    "accelerate",
    "jinja2",
    "msgspec",
    "numpy",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
_QUANTISED = ("bitsandbytes",)


def requirements(model: Model) -> tuple[str, ...]:
    """Return the lines of the model's requirements.txt, sorted. The model's own requirements win over ours."""
    names = _EVERY_CONTAINER + (_QUANTISED if quantised_bits(model.model_args) else ())
    lines = {name: f"{name}=={_pin(name)}" for name in names}
    for line in model.requirements:
        lines[canonicalize_name(Requirement(line).name)] = line
    return tuple(lines[name] for name in sorted(lines))


def sdk_version() -> str:
    """Return the version of Cog's Python SDK that containers run on."""
    return _pin("cog")


def quantised_bits(model_args: Mapping[str, Any]) -> int | None:
    """Return 4 or 8 where `from_pretrained` is asked to quantise with bitsandbytes, else None."""
    settings = {**model_args, **(model_args.get("quantization_config") or {})}
    if settings.get("load_in_4bit"):
        return 4
    return 8 if settings.get("load_in_8bit") else None


def _pin(name: str) -> str:
    version = _pins().get(name)
    if version is None:
        raise InternalError(f"pyproject.toml does not pin {name} with ==")
    return version


@cache
def _pins() -> dict[str, str]:
    """Map canonical package names to their pinned versions, extras included."""
    versions = {canonicalize_name(item.name): exact_version(item) for item in map(Requirement, _declared())}
    return {str(name): version for name, version in versions.items() if version}


def _declared() -> list[str]:
    """Return all requirements of cogsmith: of the installed one, or of the source tree it runs from."""
    try:
        return metadata.requires("cogsmith") or []
    except metadata.PackageNotFoundError:
        pyproject = Path(cogsmith.__file__).parents[2] / "pyproject.toml"
        project = tomli.loads(pyproject.read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"].values()
        return [*project["dependencies"], *(line for lines in extras for line in lines)]
