"""SHA-256 of big files, remembered between runs.

A digest is kept in the cache folder, one tiny file each, under the file's device, inode, size and modification
time, so that all hard links to one file share it. A wrong or half-written entry reads as no entry.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cogsmith.cache import cache_root, write_atomically
from cogsmith.errors import SourceError
from cogsmith.sources.base import Reporter, SourceFile, Task
from cogsmith.sources.silent import Silent

CHUNK_BYTES = 4 * 2**20
WATCHED_BYTES = 64 * 2**20
"""Hashing less than this takes no time that is worth a progress bar."""
YOUNG_NANOSECONDS = 2 * 10**9
"""A file written again within the file system's clock tick keeps its modification time, so a young file's digest
is not remembered (Git calls such a file "racily clean")."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def sha256_file(
    path: Path, reporter: Reporter | None = None, *, cache: Path | None = None, label: str | None = None
) -> str:
    """Return the hex SHA-256 of a file, from memory where the file has not changed.

    `cache` is the cache folder, `cache_root()` by default; `label` names the file to people. Raises SourceError if
    the file cannot be read or changes while it is read.
    """
    try:
        real = path.resolve()
        before = real.stat()
        entry = _entry(before, cache or cache_root())
        digest = _recall(entry)
        if digest is None:
            watcher = reporter if reporter and before.st_size >= WATCHED_BYTES else Silent()
            with watcher.task(f"Hashing {label or path.name}", before.st_size) as task:
                digest = _digest(real, task)
            _refuse_changed(path, before, real.stat())
            _remember(entry, digest, before)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", fix="check the path and permissions") from error
    return digest


def checked_sha256(path: Path, file: SourceFile, reporter: Reporter, *, cache: Path) -> str:
    """Return the SHA-256 of the bytes at `path`. Raises SourceError where the location named another for `file`.

    Caches are not trusted: a machine that lost power can leave a file of the right name and size, full of zeros;
    and a work directory's weights may be links to the same bytes, so whoever changes those changes the cache's.
    """
    digest = sha256_file(path, reporter, cache=cache, label=file.path)
    if file.sha256 not in (None, digest):
        raise SourceError(
            f"{file.path} is damaged: its SHA-256 is {digest}, expected {file.sha256}",
            fix=f"delete {path} and run again",
        )
    return digest


def fingerprint(files: Iterable[SourceFile]) -> str:
    """Return "sha256:" and a hash over the paths, sizes and digests of `files`, in any order."""
    lines = sorted(f"{file.path}\0{file.size}\0{file.sha256}\n" for file in files)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(path: Path, task: Task) -> str:
    running = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            running.update(chunk)
            task.advance(len(chunk))
    return running.hexdigest()


def _refuse_changed(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    if _identity(before) != _identity(after):
        raise SourceError(f"{path} changed while it was being read", fix="wait until it is complete, then run again")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _entry(status: os.stat_result, cache: Path) -> Path:
    key = hashlib.sha256(repr(_identity(status)).encode()).hexdigest()
    return cache / "hashes" / key[:2] / key


def _recall(entry: Path) -> str | None:
    try:
        text = entry.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if _DIGEST.fullmatch(text) else None


def _remember(entry: Path, digest: str, status: os.stat_result) -> None:
    """Store a digest. A cache that cannot be written costs time later, never the build."""
    if time.time_ns() - status.st_mtime_ns < YOUNG_NANOSECONDS:
        return
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(entry, digest.encode())
