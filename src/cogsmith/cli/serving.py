"""A work directory served for as long as one command needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cogsmith.cli.console import err
from cogsmith.gateway import cog_process
from cogsmith.gateway.cog_process import CogProcess


@contextlib.contextmanager
def served(folder: Path) -> Iterator[CogProcess]:
    """Start `folder` under the real Cog runtime, with a sign of life until it is ready; stop it at the end."""
    with contextlib.ExitStack() as stack:
        # The spinner ends before any output begins: on a terminal they would overwrite each other.
        with err.status(f"starting {folder.name} under the Cog runtime"):
            server = stack.enter_context(cog_process.running(folder))
        yield server
