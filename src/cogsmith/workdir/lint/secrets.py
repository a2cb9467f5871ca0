"""Secrets in files that would be pushed. A problem names the file and the kind, and never the secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cogsmith.config import access_tokens
from cogsmith.errors import Problem
from cogsmith.workdir.places import checkpoint_folder

_KINDS = {
    **access_tokens.KINDS,
    "an AWS access key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_VARIABLES = ("HF_TOKEN", "REPLICATE_API_TOKEN")
_SHORTEST_SECRET = 8
_LARGEST_TEXT = 16 * 2**20


def check(folder: Path) -> Iterator[Problem]:
    """Yield a problem for each text file outside the weights that holds a secret."""
    weights = checkpoint_folder(folder)
    values = {f"the value of {name}": os.environ.get(name, "") for name in _VARIABLES}
    for path in sorted(folder.rglob("*")):
        if path.is_relative_to(weights) or not path.is_file() or path.stat().st_size > _LARGEST_TEXT:
            continue
        text = path.read_bytes().decode(errors="ignore")
        kinds = [kind for kind, pattern in _KINDS.items() if pattern.search(text)]
        kinds += [kind for kind, value in values.items() if len(value) >= _SHORTEST_SECRET and value in text]
        if kinds:
            fix = "take it out of config.toml and build again; revoke it if it was ever pushed"
            yield Problem(f"holds {kinds[0]}", fix, path.relative_to(folder).as_posix())
