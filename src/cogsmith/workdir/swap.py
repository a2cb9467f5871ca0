"""A folder replaced in one step: whoever looks, and whenever a kill comes, the old or the new one is there, whole.

.NAME.tmp-PID    a folder being made, or the old one on its way out
.NAME.old-PID    the old folder set aside, on a system that cannot exchange two folders at once
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
from pathlib import Path

# From linux/fcntl.h, linux/fs.h and macOS's sys/stdio.h.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)-\d+")


def temporary_folder(target: Path) -> Path:
    """Return the name under which this process makes the folder that will replace `target`."""
    return target.with_name(f".{target.name}.tmp-{os.getpid()}")


def replace_folder(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target` and delete what was there, even a link. Raises OSError.

    `new` must come from `temporary_folder`, so that an interruption leaves only what `recover` knows.
    """
    if not os.path.lexists(target):
        new.rename(target)
    elif _exchange(new, target):
        _remove(new)
    else:
        replace_in_two_steps(new, target)


def replace_in_two_steps(new: Path, target: Path) -> None:
    """Do the same by two renames. A kill between them leaves no `target`; `recover` brings the old one back."""
    aside = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.rename(aside)
    new.rename(target)
    _remove(aside)


def recover(parent: Path) -> None:
    """Mend what interrupted runs left in `parent`: bring a lone old folder back, delete the rest.

    The caller must be the only one at work in `parent`.
    """
    for entry in sorted(parent.iterdir()):
        match = _LEFTOVER.fullmatch(entry.name)
        if match is None:
            continue
        target = parent / match["name"]
        if match["kind"] == "old" and not os.path.lexists(target):
            entry.rename(target)
        else:
            _remove(entry)


def _remove(path: Path) -> None:
    """Delete what had the place of a folder: a folder, but a user may have put a file or a link there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths atomically; False where the system or the filesystem cannot. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    elif sys.platform == "darwin":
        failed = library.renamex_np(*paths, _RENAME_SWAP)
    else:
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
