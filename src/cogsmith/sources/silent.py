"""The Reporter for work that nobody needs to watch, and libraries that keep quiet while another reports."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from cogsmith.sources.base import Task


class Silent:
    """A Reporter, and its own task, that shows nothing."""

    @contextmanager
    def task(self, label: str, total: int | None = None, *, unit: str = "bytes") -> Iterator[Task]:
        """Open a task that nobody watches."""
        yield self

    def advance(self, amount: int) -> None:
        """Take note of nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers' log, warnings and progress bars off the terminal; the reporter speaks instead."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # The GGUF loader draws a bar that no switch turns off.
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
