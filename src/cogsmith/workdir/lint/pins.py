"""requirements.txt: exact versions only, so that two builds of one folder install the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cogsmith.config.rules import INSTALLED_BY_COG, exact_version
from cogsmith.errors import Problem
from cogsmith.workdir.lint import cog_yaml


def check(folder: Path) -> Iterator[Problem]:
    """Yield the problems of the requirements file that cog.yaml names."""
    name = cog_yaml.build_section(cog_yaml.load(folder)).get("python_requirements")
    if not isinstance(name, str) or not (folder / name).is_file():
        return
    seen: Counter[str] = Counter()
    for number, line in enumerate((folder / name).read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = _fault(text, seen)
        if found:
            yield Problem(found[0], found[1], where=name, line=number)


def _fault(text: str, seen: Counter[str]) -> tuple[str, str] | None:
    """Return what is wrong with the requirement `text` and the fix; count its name in `seen`."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return "not a package with a version: options, paths and links are not accepted", "write NAME==VERSION"
    name = canonicalize_name(requirement.name)
    seen[name] += 1
    if name in INSTALLED_BY_COG:
        return f"{name} is installed by Cog, which removes this line", "pin it with build.sdk_version in cog.yaml"
    if requirement.url or requirement.marker:
        return f"{name} has a link or a marker", "write NAME==VERSION and nothing else"
    if seen[name] > 1:
        return f"{name} is listed twice", "keep one line"
    if exact_version(requirement) is None:
        return f"{name} is not pinned to one version", f"write {name}==VERSION"
    return None
