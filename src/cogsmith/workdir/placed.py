"""What builds put somewhere outside work/, remembered in the cache: so that the next one knows its own work there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cogsmith.cache import cache_root, write_atomically
from cogsmith.sources.base import SourceFile
from cogsmith.sources.hashing import fingerprint
from cogsmith.workdir.lock import LockedFile


class Placed(msgspec.Struct, frozen=True):
    """What the last build put somewhere: a hash over what it was made from and how, and bytes by relative path."""

    identity: str = msgspec.field(name="checkpoint")
    files: dict[str, int]


def marker(kind: str, place: str, cache: Path | None = None) -> Path:
    """Return the file that remembers what a build put at `place`; `kind` tells one sort of things from another."""
    return (cache or cache_root()) / kind / hashlib.sha256(place.encode()).hexdigest()


def recall(file: Path) -> Placed | None:
    """Return what a marker remembers, if anything."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Placed)
    except (OSError, msgspec.DecodeError):
        return None


def remember(file: Path, placed: Placed) -> None:
    """Write a marker, in the place of one that was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, msgspec.json.encode(placed))


def identity_of(files: Sequence[LockedFile]) -> str:
    """Return a hash over a checkpoint's files."""
    return fingerprint(SourceFile(file.path, file.size, file.sha256) for file in files)
