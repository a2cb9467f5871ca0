"""Compressed files as streams of what is in them; one that ends too early is an error, whatever the method."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from cogsmith.errors import MissingExtra, SourceError

_MARKS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"]\x00\x00": "lzma",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x89LZO\x00\r\n\x1a\n": "lzop",
}
_ZSTD_INPUT = 8192
"""A few bytes of zstd can stand for 128 KB each: what is put in at once bounds what comes out at once."""


class Readable(Protocol):
    """Something whose `read` gives bytes, and none at its end."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""


class Reader(io.RawIOBase):
    """A raw stream of `source`, for Python's buffering."""

    def __init__(self, source: Readable) -> None:
        self._source = source

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the beginning of `buffer`."""
        content = self._source.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def method_of(first: bytes) -> str | None:
    """Return how a file is compressed that begins with `first`; None where it is not."""
    return next((method for mark, method in _MARKS.items() if first.startswith(mark)), None)


@contextmanager
def open_compressed(path: Path, method: str | None) -> Iterator[Readable]:
    """Give the content of `path`, which is compressed by `method`. Raises MissingExtra, or SourceError without lzop.

    Reading raises EOFError, OSError or ValueError where the file is cut short or damaged.
    """
    with path.open("rb") as file:
        if method == "lzop":
            with _lzop(file) as source:
                yield source
        else:
            yield _OPENERS[method](file)


def _zstd(file: IO[bytes]) -> Readable:
    if importlib.util.find_spec("zstandard") is None:
        raise MissingExtra("import", "Reading a file compressed by zstd")
    return _Zstd(file)


def _lz4(file: IO[bytes]) -> Readable:
    if importlib.util.find_spec("lz4") is None:
        raise MissingExtra("import", "Reading a file compressed by lz4")
    import lz4.frame

    return lz4.frame.LZ4FrameFile(file)  # type: ignore[no-any-return]


_OPENERS: dict[str | None, Callable[[IO[bytes]], Readable]] = {
    None: lambda file: file,
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "lzma": lzma.LZMAFile,
    "zstd": _zstd,
    "lz4": _lz4,
}


class _Zstd:
    """Frames of zstd, one after the other. The package's own reader takes a frame cut short for its end."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._ready = b""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes. Raises EOFError or ValueError."""
        while not self._ready and self._more():
            pass
        content, self._ready = self._ready[:size], self._ready[size:]
        return content

    def _more(self) -> bool:
        """Decompress a little more; tell whether there was anything."""
        unused = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
        compressed = unused or self._file.read(_ZSTD_INPUT)
        if not compressed:
            if self._frame is not None and not self._frame.eof:
                raise EOFError("it ends inside a frame")
            return False
        if self._frame is None or self._frame.eof:
            self._frame = self._new_frame()
        try:
            self._ready = self._frame.decompress(compressed)
        except self._error as error:
            raise ValueError(str(error)) from error
        return True


@contextmanager
def _lzop(file: IO[bytes]) -> Iterator[Readable]:
    program = shutil.which("lzop")
    if program is None:
        raise SourceError(
            "the file is compressed by lzop, a program that is not on PATH",
            fix="install lzop, or unpack the file first",
        )
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen([program, "-dc"], stdin=file, stdout=subprocess.PIPE, stderr=complaints)
        try:
            yield _Piped(process, complaints)
        finally:
            process.kill()
            process.communicate()


class _Piped:
    """What a program writes, which must end well."""

    def __init__(self, process: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
        self._process = process
        self._complaints = complaints

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes. Raises ValueError with the program's words where it failed."""
        assert self._process.stdout is not None
        content = self._process.stdout.read(size)
        if not content and self._process.wait():
            self._complaints.seek(0)
            raise ValueError(self._complaints.read(500).decode(errors="replace").strip() or "lzop failed")
        return content
