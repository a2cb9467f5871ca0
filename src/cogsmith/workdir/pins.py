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
from cogsmith.manifest import IMAGE_TEXT
from cogsmith.workdir import architectures

_EVERY_CONTAINER = (
    "accelerate",
    "jinja2",
    "llguidance",
    "msgspec",
    "numpy",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
_QUANTISED = ("bitsandbytes",)
_IMAGES = ("pillow",)
_TORCHVISION = ("torchvision",)
_IMAGES_OF = {"smolvlm": ("num2words",)}
"""What processors of single families import, by model_type."""
_VLLM = ("jinja2", "llguidance", "msgspec", "numpy", "safetensors", "tokenizers", "torch", "transformers", "vllm")


def requirements(model: Model, shape: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return the lines of the model's requirements.txt, sorted. The model's own requirements win over ours.

    `shape` is the config.json of its weights, which may come quantised; None where it is not known yet.
    """
    lines = {name: f"{name}=={version}" for name, version in _own(model, shape or {}).items()}
    for line in model.requirements:
        lines[canonicalize_name(Requirement(line).name)] = line
    return tuple(lines[name] for name in sorted(lines))


def sdk_version() -> str:
    """Return the version of Cog's Python SDK that containers run on."""
    return _pin("cog", "engine")


def _own(model: Model, shape: Mapping[str, Any]) -> dict[str, str]:
    """Map what our code in the container needs to its version: vLLM is for another transformers than our engine."""
    if model.engine == "vllm":
        return {name: _pin(name, "vllm") for name in _VLLM}
    versions = {name: _pin(name, "engine") for name in _EVERY_CONTAINER}
    if model.task == IMAGE_TEXT:
        kinds = [part.get("model_type") for part in (shape, shape.get("vision_config") or {})]
        of_family = (name for kind in kinds for name in _IMAGES_OF.get(str(kind), ()))
        versions |= {name: _pin(name, "images") for name in (*_IMAGES, *of_family)}
        if any(kind in architectures.known(architectures.TORCHVISION) for kind in kinds):
            versions |= {name: _pin(name, "torchvision") for name in _TORCHVISION}
    return versions | ({name: _pin(name, "quant") for name in _QUANTISED} if _needs_bitsandbytes(model, shape) else {})


def _needs_bitsandbytes(model: Model, shape: Mapping[str, Any]) -> bool:
    if model.quant:
        return True
    stated = shape.get("quantization_config") or model.model_args.get("quantization_config") or {}
    return bool(stated.get("load_in_4bit") or stated.get("load_in_8bit"))


def _pin(name: str, extra: str) -> str:
    version = _pins(extra).get(name)
    if version is None:
        raise InternalError(f"pyproject.toml does not pin {name} with == in {extra}")
    return version


@cache
def _pins(extra: str) -> dict[str, str]:
    """Map canonical package names to the versions that are pinned for everyone and in one extra."""
    declared = [item for item in map(Requirement, _declared()) if _is_for(item, extra)]
    versions = {canonicalize_name(item.name): exact_version(item) for item in declared}
    return {str(name): version for name, version in versions.items() if version}


def _is_for(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _declared() -> list[str]:
    """Return all requirements of cogsmith: of the installed one, or of the source tree it runs from."""
    try:
        return metadata.requires("cogsmith") or []
    except metadata.PackageNotFoundError:
        pyproject = Path(cogsmith.__file__).parents[2] / "pyproject.toml"
        project = tomli.loads(pyproject.read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"].items()
        # As an installed package's metadata has them.
        return [*project["dependencies"], *(f'{line}; extra == "{name}"' for name, lines in extras for line in lines)]
