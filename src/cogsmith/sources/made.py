"""Folders that were made of other files and are kept in the cache, each under a hash of all that decides its bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cogsmith.sources.base import Checkpoint, CheckpointFile, Reporter
from cogsmith.sources.hashing import sha256_file


def hash_of(inputs: object) -> str:
    """Return the hex SHA-256 of what decides a folder's bytes, given in JSON's types: its name in the cache."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def checkpoint(folder: Path, reporter: Reporter, cache: Path) -> Checkpoint:
    """Return all files of a finished `folder`, with their SHA-256, by their paths in it. Raises SourceError."""
    return Checkpoint(
        tuple(
            CheckpointFile(
                path.relative_to(folder).as_posix(),
                path,
                path.stat().st_size,
                sha256_file(path, reporter, cache=cache),
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        )
    )
