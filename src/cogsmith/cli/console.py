"""Where the command line writes: results to stdout, everything else to stderr.

rich honours NO_COLOR and leaves out colour where no terminal is. Progress bars are drawn on a terminal; elsewhere,
such as in a CI log, a line marks the start and the end of each task.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """End well: the reader has gone, such as `head`, and what it did not want need not be written."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()
        raise SystemExit(0)


class _Messages(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence: the work is not done for those who watch it."""
        self.quiet = True


# No emoji: rich would put them for words between colons, which occur in sources, paths and a model's text.
out = _Results(highlight=False, soft_wrap=True, emoji=False)
# Bound now: a library that is kept quiet by redirecting sys.stderr must not take our progress with it.
err = _Messages(file=sys.stderr, highlight=False, soft_wrap=True, emoji=False)


class _LiveTask:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: int) -> None:
        """Move the bar."""
        self._progress.advance(self._task, amount)


class _CountingTask:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, amount: int) -> None:
        """Count."""
        self.done += amount


class ConsoleReporter:
    """A `sources.base.Reporter` that draws on stderr."""

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None, *, unit: str = "bytes") -> Iterator[_LiveTask | _CountingTask]:
        """Show a task of `total` units while the context is open."""
        if err.is_terminal:
            with Progress(*_columns(unit, total), console=err, transient=True) as progress:
                yield _LiveTask(progress, progress.add_task(label, total=total))
            return
        size = f" ({format_bytes(total)})" if total and unit == "bytes" else ""
        self.note(f"{label}{size} ...")
        started, task = time.monotonic(), _CountingTask()
        yield task
        self.note(f"{label}: done in {time.monotonic() - started:.1f} s")

    def note(self, text: str) -> None:
        """Print one line."""
        err.print(text, style="dim", markup=False)


def _columns(unit: str, total: int | None) -> list[ProgressColumn]:
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    if total is None:
        return columns
    counters = [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
    return [*columns, BarColumn(), *counters, TimeRemainingColumn()]


def format_bytes(count: int) -> str:
    """Write a number of bytes for a person, in powers of ten as disks and networks are sold: `98.4 MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
