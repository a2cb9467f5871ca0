"""A part of a location: one of its folders or files, or what matches patterns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined] # public, but not re-exported

from cogsmith.errors import SourceError
from cogsmith.sources.base import Location, Reporter, SourceFile


@runtime_checkable
class CountsParameters(Protocol):
    """A location that can tell a safetensors file's parameters without fetching it."""

    def parameters(self, revision: str, file: SourceFile) -> int | None:
        """Return the count; None where it cannot be had."""


class PartOf:
    """The files of `whole` below `inside` (all, where it is empty) that match one of `patterns`.

    Where `inside` names a file, that one alone is there, by its last name.
    """

    def __init__(self, whole: Location, inside: str = "", patterns: Sequence[str] = ()) -> None:
        self.uri = f"{whole.uri}/{inside}" if inside else whole.uri
        self._whole = whole
        self._inside = inside
        self._patterns = patterns

    def list(self) -> tuple[str, Sequence[SourceFile]]:
        """Return the whole's revision and the files of this part. Raises SourceError where there are none."""
        revision, listed = self._whole.list()
        found = [replace(file, path=self._name(file.path)) for file in listed if self._is_inside(file.path)]
        if self._inside and not found:
            there = ", ".join(sorted({file.path.partition("/")[0] for file in listed})[:8]) or "nothing"
            raise SourceError(
                f"{self._whole.uri} has no folder or file {self._inside}; at its top: {there}",
                fix="check the name, or the revision",
            )
        return revision, matching(self.uri, found, self._patterns)

    def fetch(self, revision: str, files: Sequence[SourceFile], reporter: Reporter) -> dict[str, Path]:
        """Bring `files` here; return the real path of each by its path in this part. Raises SourceError."""
        there = {file.path: replace(file, path=self._path(file.path)) for file in files}
        places = self._whole.fetch(revision, list(there.values()), reporter)
        return {path: places[file.path] for path, file in there.items()}

    def parameters(self, revision: str, file: SourceFile) -> int | None:
        """Return how many parameters a safetensors file holds; None where that cannot be had."""
        if not isinstance(self._whole, CountsParameters):
            return None
        return self._whole.parameters(revision, replace(file, path=self._path(file.path)))

    def _is_inside(self, path: str) -> bool:
        return not self._inside or path == self._inside or path.startswith(f"{self._inside}/")

    def _name(self, path: str) -> str:
        """Return the path in this part of a path in the whole."""
        if path == self._inside:
            return path.rpartition("/")[2]
        return path.removeprefix(f"{self._inside}/") if self._inside else path

    def _path(self, name: str) -> str:
        """Return the path in the whole of a path in this part."""
        if not self._inside:
            return name
        return self._inside if self._is_one_file else f"{self._inside}/{name}"

    @cached_property
    def _is_one_file(self) -> bool:
        return any(file.path == self._inside for file in self._whole.list()[1])


def matching(uri: str, files: Sequence[SourceFile], patterns: Sequence[str]) -> list[SourceFile]:
    """Return the files whose paths match one of `patterns`, as the Hub's `allow_patterns` do; all, where none is given.

    Raises SourceError where nothing matches.
    """
    if not patterns:
        return list(files)
    chosen = list(filter_repo_objects(files, allow_patterns=list(patterns), key=lambda file: file.path))
    if not chosen:
        raise SourceError(
            f"no file of {uri} matches allow_patterns = {', '.join(patterns)}",
            fix="check the patterns; they are for whole paths, such as *.json or weights/*",
        )
    return chosen
