"""One object onto this disk. What a cut transfer brought is kept, and the next one goes on from there.

FOLDER/NAME             the object, whole and checked
FOLDER/.NAME.partial    its first bytes, from a transfer that was cut; locked while somebody adds to it
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BufferedRandom
from pathlib import Path

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from cogsmith.errors import SourceError
from cogsmith.sources.base import Task
from cogsmith.sources.stores.base import Interrupted, Store, StoredObject

ATTEMPTS = 5
"""Tries in a row that bring nothing, before it is an error. One that brings something starts the count again."""
WAIT = wait_exponential_jitter(multiplier=0.5, max=20)


def download(store: Store, stored: StoredObject, target: Path, task: Task) -> None:
    """Bring `stored` to `target`, checked by size, version and, where there is one, MD5.

    Tells `task` of all its bytes, those of an earlier transfer too. Raises SourceError; what had come then stays,
    unless it is damaged.
    """
    partial = target.with_name(f".{target.name}.partial")
    with _stored_safely(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(partial) as file:
            if not target.exists():
                _complete(store, stored, file, task)
                _check(store, stored, file, partial)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(target)


def _complete(store: Store, stored: StoredObject, file: BufferedRandom, task: Task) -> None:
    """Append to `file` what it lacks of the object, through cuts."""
    task.advance(min(_length(file), stored.size))
    patience = _Patience(file)
    try:
        for attempt in Retrying(
            retry=retry_if_exception_type(Interrupted), stop=patience.is_exhausted, wait=WAIT, reraise=True
        ):
            with attempt:
                _append(store, stored, file, task)
    except Interrupted as error:
        raise SourceError(
            f"{store.uri}: the transfer of {stored.name} was cut at byte {_length(file)} of {stored.size} ({error})",
            fix="check the network and run again: it goes on from there",
        ) from None


class _Patience:
    """Counts tries that brought nothing."""

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self._had = _length(file)
        self._fruitless = 0

    def is_exhausted(self, _: RetryCallState) -> bool:
        """Take note of one more try that failed."""
        has = _length(self._file)
        self._fruitless = 1 if has > self._had else self._fruitless + 1
        # The most that there ever was: a server that has to begin again must not look as if it went on.
        self._had = max(has, self._had)
        return self._fruitless >= ATTEMPTS


def _append(store: Store, stored: StoredObject, file: BufferedRandom, task: Task) -> None:
    """Read once from where `file` ends. Raises Interrupted where the object is not whole then."""
    if _length(file) > stored.size:
        file.truncate(0)
    if _length(file) == stored.size:
        return
    begin, content = store.read(stored, _length(file))
    with closing(content):
        task.advance(begin - _length(file))
        file.truncate(begin)
        has = file.seek(begin)
        for block in content:
            has += len(block)
            if has > stored.size:
                raise SourceError(
                    f"{store.uri}: {stored.name} goes on after its {stored.size} bytes",
                    fix="run again, or fetch it by hand",
                )
            file.write(block)
            task.advance(len(block))
    if has != stored.size:
        raise Interrupted(f"{has} bytes came of {stored.size}")


def _check(store: Store, stored: StoredObject, file: BufferedRandom, partial: Path) -> None:
    """Refuse a file that is made of two versions, or damaged, and forget it."""
    now = store.describe(stored.key)
    if now is None or (now.version, now.size) != (stored.version, stored.size):
        partial.unlink()
        raise SourceError(f"{store.uri}: {stored.name} changed while it was fetched", fix="run again")
    expected = now.md5 or stored.md5
    file.seek(0)
    if expected and hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != expected:
        partial.unlink()
        raise SourceError(f"{store.uri}: {stored.name} came damaged; its MD5 is not {expected}", fix="run again")


def _length(file: BufferedRandom) -> int:
    """Return how long `file` is, with what is still in its buffer, and go to its end."""
    return file.seek(0, os.SEEK_END)


@contextmanager
def _locked(partial: Path) -> Iterator[BufferedRandom]:
    """Open `partial` for this process and thread alone; others wait, and then find the whole file."""
    while True:
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(partial, file):
                continue  # somebody finished or dropped it while we waited
            try:
                yield file
            finally:
                if _length(file) == 0 and _is_at(partial, file):
                    partial.unlink()
            return


def _is_at(path: Path, file: BufferedRandom) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def _stored_safely(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise SourceError(
            f"the disk of {folder} is full" if full else f"{folder} cannot be written: {error.strerror}",
            fix="free space, or name another folder in `source_cache` or COGSMITH_CACHE, and run again"
            if full
            else "check the folder's permissions",
        ) from error
