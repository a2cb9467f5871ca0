"""The folder where Cogsmith keeps what is costly to make again: conversions, extracted wheels, file hashes.

Everything in it may be deleted at any time. Entries appear whole or not at all, by the two functions here that
write a folder or a file in one step.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_root() -> Path:
    """Return the cache folder: COGSMITH_CACHE, else XDG_CACHE_HOME/cogsmith, else ~/.cache/cogsmith."""
    chosen = os.environ.get("COGSMITH_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "cogsmith"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target`, renamed to it on success and removed on failure.

    For folders whose content is fixed by their name: where `target` is already there at the end (another process
    was faster), that one stays. Temporaries that a killed process left are removed first. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    temporary = Path(tempfile.mkdtemp(prefix=f"{_prefix(target)}{os.getpid()}.", dir=target.parent))
    # mkdtemp makes it private to the user; the finished folder follows the umask like any other.
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        _move_into_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Put a file at `path`, in place of one that is there: a reader sees the old or the new one.

    Temporaries that a killed process left are removed first. Raises OSError.
    """
    _remove_stale(path)
    # Of the thread too: two of one process may write the same file.
    partial = path.with_name(f"{_prefix(path)}{os.getpid()}.{threading.get_ident()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _move_into_place(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _prefix(target: Path) -> str:
    """Name the host too: on a shared disk, another machine's process ids say nothing here."""
    return f".{target.name}.partial.{platform.node()}."


def _remove_stale(target: Path) -> None:
    prefix = _prefix(target)
    for path in target.parent.iterdir():
        if path.name.startswith(prefix):
            owner = path.name.removeprefix(prefix).partition(".")[0]
            if owner.isdecimal() and not _is_alive(int(owner)):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    current = os.umask(0o077)
    os.umask(current)
    return current
