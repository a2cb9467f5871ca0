"""The folder `work/`, for one build at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cogsmith.errors import UserError


@contextmanager
def exclusive(work: Path) -> Iterator[None]:
    """Make `work` where it is absent, and hold it until the block ends. Raises UserError where another build does.

    The hold is the kernel's (flock), so a killed build lets go of it.
    """
    work.mkdir(exist_ok=True)
    ignore = work / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n!.gitignore\n", encoding="utf-8")
    with (work / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"another build (process {holder}) is at work in {work}", fix="wait until it is done, or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
