"""The files in an answer: data URIs in its JSON, as those of return_logits and return_cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cogsmith import data_uris
from cogsmith.errors import UserError

_NAMES = {"npz": "arrays.npz", "cache": "cache.safetensors"}
"""What the fields that hold files are called on a disk."""


def save(answer: str, folder: Path) -> str:
    """Write the files of an answer into `folder`; return the answer with their paths in their places.

    An answer without files is returned as it is. Those of the answers to `prompts` begin with their number, from
    0. Raises OSError; UserError for a file that is cut.
    """
    try:
        content = json.loads(answer)
    except ValueError:
        return answer
    parts = content if isinstance(content, list) else [content]
    num_written = 0
    for place, part in enumerate(parts):
        prefix = f"{place}." if isinstance(content, list) else ""
        num_written += _save_part(part, folder, prefix) if isinstance(part, dict) else 0
    return json.dumps(content, ensure_ascii=False) if num_written else answer


def _save_part(part: dict[str, Any], folder: Path, prefix: str) -> int:
    """Replace the data URIs of one object by the paths of files; return how many there were."""
    names = [name for name in _NAMES if str(part.get(name, "")).startswith("data:")]
    for name in names:
        file = folder / (prefix + _NAMES[name])
        content = _content(name, part[name])
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        part[name] = str(file)
    return len(names)


def _content(name: str, uri: str) -> bytes:
    try:
        return data_uris.decode(uri)
    except ValueError as error:
        raise UserError(f"the file {name} in the answer cannot be read: {error}", fix="ask again") from None
