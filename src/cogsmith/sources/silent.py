"""The Reporter for work that nobody needs to watch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
