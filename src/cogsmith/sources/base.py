"""What a source of weights is: it can be resolved without moving weights, then materialised.

    location   where bytes are (a hub repository, a folder, a file in a Python package)
    source     a location read in one format; materialising it gives a Hugging Face checkpoint folder

`resolve` is cheap and exact: it names the revision and every file with its size. `materialise` fetches or
converts, and answers with real files on this disk, ready to be hard-linked into a work directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file at a location. `path` is relative, POSIX; `sha256` is None where only the bytes could tell."""

    path: str
    size: int
    sha256: str | None = None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """A source nailed down: the same `Resolved` always gives the same checkpoint.

    `checkpoint_bytes` is the size of the folder that comes out: `exact`, or guessed where it is still to be converted.
    `parameters` counts weights; None where that cannot be known before the bytes are here. `shape` is config.json,
    where there is one already. `unquantised_bytes` is the size that the folder would have had without `quant`.
    `further_uris` are the places that come on top of `uri`, in order; `revision` is then a hash over all of them.
    `conversion` says what decides the checkpoint besides: the importer, and what it was asked for; "" for nothing.
    """

    uri: str
    revision: str
    format: str
    files: tuple[SourceFile, ...]
    checkpoint_bytes: int
    parameters: int | None = None
    shape: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    unquantised_bytes: int | None = None
    further_uris: tuple[str, ...] = ()
    conversion: str = ""
    exact: bool = field(default=True, compare=False)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes that are not on this machine yet."""
        return sum(file.size for file in self.files if not file.cached)


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One file of a checkpoint folder: its relative POSIX `path` there, and where its bytes lie now."""

    path: str
    origin: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A Hugging Face checkpoint, file by file, on this disk."""

    files: tuple[CheckpointFile, ...]


class Task(Protocol):
    """A running piece of work that a person may watch."""

    def advance(self, amount: int) -> None:
        """Say that `amount` more units (bytes, tensors) are done."""


class Reporter(Protocol):
    """Shows progress. The library feeds it and does not know what it draws."""

    def task(self, label: str, total: int | None = None, *, unit: str = "bytes") -> AbstractContextManager[Task]:
        """Open a task of `total` units; None where the total is unknown."""

    def note(self, text: str) -> None:
        """Say one line, such as a warning."""


class Source(Protocol):
    """Weights in one format at one location."""

    def resolve(self) -> Resolved:
        """Name the exact revision and files. Raises SourceError."""

    def materialise(self, resolved: Resolved, reporter: Reporter) -> Checkpoint:
        """Bring the checkpoint onto this disk. Raises SourceError or ConversionError; leaves nothing half-made."""


class Location(Protocol):
    """Where files are. What they mean is the format's business."""

    uri: str

    def list(self) -> tuple[str, Sequence[SourceFile]]:
        """Return the exact revision and all files there. Raises SourceError."""

    def fetch(self, revision: str, files: Sequence[SourceFile], reporter: Reporter) -> dict[str, Path]:
        """Bring `files` here; return the real path (no link) of each by its relative path. Raises SourceError."""
