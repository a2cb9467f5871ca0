"""What a store answers: which objects there are, and their bytes from any place on."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cogsmith.errors import SourceError

MD5_BYTES = 16

LINK_SUFFIX = ".symlink"
"""Composer's stand-in for a symbolic link where a store has none: an object whose text names another object."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object. `key` is its whole name in the store, `name` the last part of it, fit for a file.

    `version` is another one whenever the content is: an entity tag, a generation, a time. `md5` is in hex, and None
    where the store does not vouch for one.
    """

    key: str
    name: str
    size: int
    version: str
    md5: str | None = None


class Interrupted(Exception):
    """A transfer broke off, for a reason that may pass. The message holds nothing secret."""


class Store(Protocol):
    """Where objects are. All methods raise SourceError."""

    uri: str

    def describe(self, key: str) -> StoredObject | None:
        """Return what is at `key` now; None where there is no object."""

    def below(self, key: str) -> Sequence[StoredObject]:
        """Return all objects in the folder `key`, and in folders there."""

    def read(self, stored: StoredObject, start: int) -> tuple[int, Generator[bytes]]:
        """Return the content from byte `start` on, or from 0 where the server cannot skip, and where it begins.

        Raises Interrupted, also while the content is read. Who stops before its end closes it: what it still does
        must not be left to the garbage collector, which may run in the very thread that has to answer it.
        """

    def link_targets(self, link: StoredObject, text: str) -> Sequence[str]:
        """Return the keys that `text`, the content of `link`, may mean, the likeliest first."""

    def missing(self, key: str) -> SourceError:
        """Say that there is nothing at `key`, and what is near."""


def md5_of(encoded: str) -> str | None:
    """Return an MD5 that a server sent in base64, in hex; None for what is none."""
    try:
        digest = base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        return None
    return digest.hex() if len(digest) == MD5_BYTES else None
