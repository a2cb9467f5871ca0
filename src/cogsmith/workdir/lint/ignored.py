""".dockerignore: nothing that the container needs may be left out of the image.

Patterns are those of Docker: relative to the root, `**` for any number of folders, `!` to take back, last match wins.
https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cogsmith import manifest
from cogsmith.errors import Problem
from cogsmith.workdir.places import checkpoint_folder

FILE = ".dockerignore"
_TOKENS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def check(folder: Path) -> Iterator[Problem]:
    """Yield a problem for every needed file that .dockerignore keeps out of the image."""
    if not (folder / FILE).is_file():
        return
    patterns = list(_patterns((folder / FILE).read_text(encoding="utf-8", errors="replace")))
    for top, paths in _needed(folder).items():
        lost = [path for path in paths if _is_ignored(path, patterns)]
        if lost:
            yield Problem(f"keeps {lost[0]} out of the image", f"remove the pattern that matches {top}", FILE)


def _needed(folder: Path) -> dict[str, list[str]]:
    """Return the files that the container reads, grouped by what a person would call them."""
    weights = checkpoint_folder(folder)
    groups = {
        "predict.py": [folder / "predict.py"],
        manifest.FILE_NAME: [folder / manifest.FILE_NAME],
        "cogsmith/": sorted((folder / "cogsmith").rglob("*.py")),
        f"{manifest.MODEL_CODE}/": sorted((folder / manifest.MODEL_CODE).rglob("*.py")),
        f"{weights.name}/": sorted(path for path in weights.rglob("*") if path.is_file()),
    }
    return {name: [path.relative_to(folder).as_posix() for path in paths] for name, paths in groups.items()}


def _patterns(text: str) -> Iterator[tuple[re.Pattern[str], bool]]:
    """Yield each line as a pattern, and whether it takes files back in."""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or line.startswith("#"):
            continue
        negated = stripped.startswith("!")
        path = stripped.removeprefix("!").strip().removeprefix("/").removesuffix("/")
        parts = re.split(r"(\*\*/|\*\*|\*|\?)", path)
        yield re.compile("".join(_TOKENS.get(part, re.escape(part)) for part in parts)), negated


def _is_ignored(path: str, patterns: list[tuple[re.Pattern[str], bool]]) -> bool:
    """Tell whether the file `path` is left out; a pattern that matches a folder counts for all in it."""
    parts = path.split("/")
    prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    ignored = False
    for pattern, negated in patterns:
        if any(pattern.fullmatch(prefix) for prefix in prefixes):
            ignored = not negated
    return ignored
