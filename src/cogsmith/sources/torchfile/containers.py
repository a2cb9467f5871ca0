"""Tar archives and compressed files around one file of torch's, told by their content: a cached file has no suffix.

Composer writes `.tar`, `.tar.gz`, `.tgz`, `.tar.bz2` and `.tar.lzma` (that is xz), each with the one member
`composer_states.pt`, and `.pt.{gz,bz2,xz,lzma,zst,lz4,lzo}` by the command-line program of the method. What is inside
is streamed into a scratch folder under a name of ours, so no name in an archive means a place on this disk.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from cogsmith.errors import SourceError
from cogsmith.sources.base import Task
from cogsmith.sources.silent import Silent
from cogsmith.sources.torchfile.decompress import Reader, method_of, open_compressed
from cogsmith.sources.torchfile.shards import refuse_other_shards

MEMBER = "composer_states.pt"
CHUNK_BYTES = 4 * 2**20
ROOM_KEPT = 64 * 2**20
"""Bytes of the scratch folder's disk that are left to others."""

_DAMAGE = (EOFError, ValueError, RuntimeError, zlib.error, LZMAError, tarfile.TarError)
_TAR_BYTES = 512
_TAR_MARK, _TAR_AT = b"ustar", 257


@contextmanager
def opened(path: Path, scratch: Path, task: Task | None = None) -> Iterator[Path]:
    """Give the plain file inside `path`: `path` itself where nothing is around it, else a file in the folder `scratch`.

    The file is removed at the end; what was mapped of it stays. `task` counts the bytes written. Raises SourceError
    where the file is cut short, holds no or no clear file of weights, or is more than the disk has room for;
    MissingExtra for zstd and lz4.
    """
    try:
        with path.open("rb") as stream:
            first = stream.read(_TAR_BYTES)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", fix="check the path and permissions") from error
    method = method_of(first)
    if method is None and not _is_tar(first):
        yield path
        return
    with tempfile.TemporaryDirectory(dir=scratch, prefix="unpacked.") as folder:
        target = Path(folder) / "weights.pt"
        _unpack(path, method, target, task or Silent())
        yield target


def _unpack(path: Path, method: str | None, target: Path, task: Task) -> None:
    try:
        with open_compressed(path, method) as source:
            stream = io.BufferedReader(Reader(source), CHUNK_BYTES)
            if _is_tar(stream.peek(_TAR_BYTES)[:_TAR_BYTES]):
                _take_member(stream, target, task)
            else:
                _copy(stream, target, task)
            # The end of the stream is where its checksum is.
            while stream.read(CHUNK_BYTES):
                pass
    except OSError as error:
        if error.errno is None:
            raise _damaged(path, error) from error
        raise SourceError(f"{path} cannot be unpacked: {error.strerror}", fix=f"check {target.parent}") from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path} cannot be unpacked: {error}", fix="fetch it again; it was probably cut short")


def _is_tar(first: bytes) -> bool:
    return first[_TAR_AT : _TAR_AT + len(_TAR_MARK)] == _TAR_MARK


def _take_member(stream: IO[bytes], target: Path, task: Task) -> None:
    """Copy the member MEMBER, else the only one with the suffix .pt. Raises ValueError where it is not clear which."""
    names: list[str] = []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            names.append(member.name)
            if not _is_wanted(member.name, names[:-1]):
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise ValueError(f"its member {member.name!r} is no plain file")
            _refuse_too_big(member.size, target)
            _copy(content, target, task)
    refuse_other_shards(names)
    weights = [name for name in names if _is_weights(name)]
    named = [name for name in weights if PurePosixPath(name).name == MEMBER]
    if len(named) != 1 and len(weights) != 1:
        listed = ", ".join(weights or names)[:300]
        raise ValueError(
            f"it should hold one {MEMBER}, or one file with the suffix .pt, and holds: {listed or 'nothing'}"
        )


def _is_wanted(name: str, before: list[str]) -> bool:
    first = not any(_is_weights(other) for other in before)
    return _is_weights(name) and (first or PurePosixPath(name).name == MEMBER)


def _is_weights(name: str) -> bool:
    return name.endswith(".pt")


def _copy(content: IO[bytes], target: Path, task: Task) -> None:
    with target.open("wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            _refuse_too_big(len(chunk), target)
            file.write(chunk)
            task.advance(len(chunk))


def _refuse_too_big(size: int, target: Path) -> None:
    free = shutil.disk_usage(target.parent).free - ROOM_KEPT
    if size > free:
        raise SourceError(
            f"there is no room to unpack the weights: {size} more bytes are needed, and {max(free, 0)} are free",
            fix=f"make room on the disk of {target.parent.parent}, or unpack the file elsewhere and name what is in it",
        )
