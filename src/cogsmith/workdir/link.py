"""A file put in a second place without moving its bytes, where the filesystem allows."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Literal

Way = Literal["hard link", "reflink", "copy"]

# ioctl number of FICLONE, from linux/fs.h: _IOW(0x94, 9, int).
_FICLONE = 0x40049409


def place(origin: Path, target: Path) -> Way:
    """Make `target` a file with the content of `origin`: a hard link, else a reflink, else a copy.

    Answers with the way taken. Never leaves a partial `target`. Raises FileExistsError where there is one already,
    and OSError where not even a copy succeeds.
    """
    origin = origin.resolve(strict=True)
    try:
        os.link(origin, target)
        return "hard link"
    except FileExistsError:
        raise
    except OSError:
        return _duplicate(origin, target)


def _duplicate(origin: Path, target: Path) -> Way:
    partial = target.with_name(f".{target.name}.partial")
    try:
        way: Way = "reflink" if _reflink(origin, partial) else "copy"
        if way == "copy":
            shutil.copyfile(origin, partial)
        partial.chmod(0o644)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
    return way


def _reflink(origin: Path, target: Path) -> bool:
    """Share the blocks of `origin` copy-on-write; False where the filesystem cannot."""
    if sys.platform != "linux":
        return False
    import fcntl

    with origin.open("rb") as source, target.open("wb") as sink:
        try:
            fcntl.ioctl(sink.fileno(), _FICLONE, source.fileno())
        except OSError:
            return False
    return True
