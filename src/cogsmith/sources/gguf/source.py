"""Weights in a GGUF file: converted once to a Hugging Face checkpoint folder, and kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cogsmith.cache import atomic_folder
from cogsmith.config.model import Model, Precision
from cogsmith.errors import SourceError
from cogsmith.sources import made
from cogsmith.sources.base import Checkpoint, Location, Reporter, Resolved, SourceFile
from cogsmith.sources.gguf import GGUF_SUFFIX
from cogsmith.sources.gguf.convert import VERSION, convert, require_converter
from cogsmith.sources.gguf.header import Header, read_header
from cogsmith.sources.hashing import checked_sha256
from cogsmith.sources.silent import Silent

BYTES_PER_WEIGHT: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2}

DEFAULT_PRECISION: Precision = "fp32"

_ASSUMED_BITS_PER_WEIGHT = 4.5
"""The most common quantisation's (Q4_K, Q4_0). Used only until the file is here and says how many weights it has."""


class GgufSource:
    """The GGUF file called `file` at `location`; None means the only one there. `cache` is the cache's root."""

    def __init__(self, location: Location, file: str | None, model: Model, cache: Path) -> None:
        self.location = location
        self.file = file
        self.precision: Precision = model.output_precision or DEFAULT_PRECISION
        self.cache = cache

    def resolve(self) -> Resolved:
        """Name the revision and the file. Weights are counted where the file is here, else sized by estimate.

        Raises SourceError for no such file, several, or one that is no whole GGUF header.
        """
        revision, listed = self.location.list()
        chosen = choose_file(self.location.uri, listed, self.file)
        parameters = self._header(revision, chosen).parameters if chosen.cached else None
        weights = parameters or round(chosen.size * 8 / _ASSUMED_BITS_PER_WEIGHT)
        return Resolved(
            uri=self._uri(),
            revision=revision,
            format="gguf",
            files=(chosen,),
            checkpoint_bytes=weights * BYTES_PER_WEIGHT[self.precision],
            exact=parameters is not None,
            parameters=parameters,
            conversion="" if self.precision == DEFAULT_PRECISION else f"output_precision = {self.precision}",
        )

    def materialise(self, resolved: Resolved, reporter: Reporter) -> Checkpoint:
        """Fetch the GGUF and convert it, unless that was done before.

        Raises MissingExtra before anything is fetched, then SourceError or ConversionError; the cache only ever
        holds whole, verified folders.
        """
        require_converter()
        path = self.location.fetch(resolved.revision, resolved.files, reporter)[resolved.files[0].path]
        digest = checked_sha256(path, resolved.files[0], reporter, cache=self.cache)
        header = read_header(path)
        folder = self.cache / "gguf" / cache_key(digest, self.precision)
        if not folder.is_dir():
            with atomic_folder(folder) as unfinished:
                convert(header, unfinished, self.precision, reporter)
        return made.checkpoint(folder, reporter, self.cache)

    def _uri(self) -> str:
        uri = self.location.uri
        return uri if self.file is None or uri.endswith(f"/{self.file}") else f"{uri}/{self.file}"

    def _header(self, revision: str, file: SourceFile) -> Header:
        return read_header(self.location.fetch(revision, [file], Silent())[file.path])


def choose_file(uri: str, files: Sequence[SourceFile], name: str | None) -> SourceFile:
    """Return the file called `name`, or the only .gguf. Raises SourceError that lists what there is."""
    found = {file.path: file for file in files if file.path.lower().endswith(GGUF_SUFFIX)}
    listed = ", ".join(sorted(found)) or "none"
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name is None:
        fix = f'add one to the source, such as "{uri}/{min(found)}"' if found else "check the source"
        raise SourceError(f"{uri} should hold one .gguf file; it holds: {listed}", fix=fix)
    if name not in found:
        raise SourceError(f"{uri} has no file {name}; its .gguf files: {listed}", fix="check the file's name")
    return found[name]


def cache_key(sha256: str, precision: Precision) -> str:
    """Return the name of a conversion's folder: a hash of all that decides its bytes."""
    return made.hash_of(
        {"sha256": sha256, "precision": precision, "converter": VERSION, "transformers": version("transformers")}
    )
