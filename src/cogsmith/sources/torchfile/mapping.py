"""Parts of a file as memory, mapped where they are asked for and not read."""

from __future__ import annotations

import io
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Any

WINDOW_BYTES = 2 * 2**30
"""Parts of one window of the file share a mapping, and the file handle that Python keeps for each.

One mapping of a whole file would be simpler. But these are private, so that a write to a tensor changes no file, and
Linux refuses to map privately at once more than the machine has memory.
"""


class MappedFile:
    """An open file. What `part` returned stays after it is closed."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises OSError."""
        self.path = path
        self._stream = path.open("rb", buffering=0)
        self.size = os.fstat(self._stream.fileno()).st_size
        self._windows: dict[tuple[int, int], mmap.mmap] = {}

    def __enter__(self) -> MappedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def part(self, start: int, size: int) -> tuple[mmap.mmap, int]:
        """Return a private mapping that holds the `size` bytes (over 0) from `start`, and where in it they begin.

        Raises ValueError where the file does not have them.
        """
        if start < 0 or size < 1 or start + size > self.size:
            raise ValueError(f"it has {self.size} bytes, and {size} are named at {start}")
        first = start // WINDOW_BYTES * WINDOW_BYTES
        last = min(first + WINDOW_BYTES, self.size)
        if start + size > last:
            # It crosses into the next window: a mapping of its own, which must begin with a page.
            first, last = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY, start + size
        window = self._windows.get((first, last))
        if window is None:
            window = mmap.mmap(self._stream.fileno(), last - first, access=mmap.ACCESS_COPY, offset=first)
            self._windows[first, last] = window
        return window, start - first

    def read(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from `start`, into memory. Raises OSError."""
        self._stream.seek(start)
        pieces = []
        while size > 0 and (piece := self._stream.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


class Section(io.RawIOBase):
    """The `size` bytes from `start` of a file, as a file."""

    def __init__(self, file: MappedFile, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read in any order."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the section, which may lie past its end. Raises ValueError for one before its start."""
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError("a place before the file's start is named")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the section goes."""
        content = self._file.read(self._start + self._position, max(min(len(buffer), self._size - self._position), 0))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
