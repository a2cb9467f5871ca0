"""A checkpoint in the Hugging Face format: the files that are needed, as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cogsmith.errors import SourceError
from cogsmith.sources.base import Checkpoint, CheckpointFile, Location, Reporter, Resolved, SourceFile
from cogsmith.sources.hashing import checked_sha256, sha256_file
from cogsmith.sources.part import CountsParameters
from cogsmith.sources.safetensors_file import read_header
from cogsmith.sources.selection import CONFIG, python_files, select
from cogsmith.sources.silent import Silent
from cogsmith.sources.tokenizer_files import completed

HEADERS_AT_ONCE = 8


class HfFolderSource:
    """Reads a location as a Hugging Face checkpoint folder. `brings_code` says that the user named the model's code."""

    def __init__(
        self, location: Location, cache: Path, *, allow_pickle: bool = False, brings_code: bool = False
    ) -> None:
        self._location = location
        self._cache = cache
        self._allow_pickle = allow_pickle
        self._brings_code = brings_code

    def resolve(self) -> Resolved:
        """Name the exact revision and the needed files. Fetches at most a shard index and config.json.

        Raises SourceError for a checkpoint that is incomplete, unsafe or, where its bytes are here, damaged.
        """
        revision, listed = self._location.list()
        chosen = select(
            listed, self._location.uri, lambda file: self._read_json(revision, file), allow_pickle=self._allow_pickle
        )
        shape = self._read_json(revision, _named(CONFIG, chosen))
        return Resolved(
            uri=self._location.uri,
            revision=revision,
            format="hf",
            files=chosen,
            checkpoint_bytes=sum(file.size for file in chosen),
            parameters=self._parameters(revision, chosen),
            shape=shape,
        )

    def materialise(self, resolved: Resolved, reporter: Reporter) -> Checkpoint:
        """Fetch the files, check the safetensors among them, and give the digest of each.

        A tokenizer without tokenizer.json gets one. Raises SourceError, or ConversionError and MissingExtra for that.
        """
        self._note_custom_code(resolved, reporter)
        places = self._location.fetch(resolved.revision, resolved.files, reporter)
        for file in resolved.files:
            if _is_safetensors(file):
                read_header(places[file.path])
        files = {file.path: self._checkpoint_file(file, places[file.path], reporter) for file in resolved.files}
        digests = {path: file.sha256 for path, file in files.items()}
        for path, place in completed(places, digests, self._cache, reporter).items():
            files[path] = CheckpointFile(path, place, place.stat().st_size, sha256_file(place, cache=self._cache))
        return Checkpoint(tuple(files[path] for path in sorted(files)))

    def _checkpoint_file(self, file: SourceFile, place: Path, reporter: Reporter) -> CheckpointFile:
        digest = checked_sha256(place, file, reporter, cache=self._cache)
        return CheckpointFile(file.path, place, file.size, digest)

    def _parameters(self, revision: str, files: Sequence[SourceFile]) -> int | None:
        location = self._location
        weights = [file for file in files if _is_safetensors(file)]
        if not weights or not isinstance(location, CountsParameters):
            return None
        with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
            counts = list(pool.map(lambda file: location.parameters(revision, file), weights))
        return None if None in counts else sum(count for count in counts if count is not None)

    def _note_custom_code(self, resolved: Resolved, reporter: Reporter) -> None:
        """Say that Python files stay behind, where the model counts on some."""
        if self._brings_code or "auto_map" not in self._read_json(resolved.revision, _named(CONFIG, resolved.files)):
            return
        code = python_files(self._location.list()[1])
        if code:
            reporter.note(
                f"{resolved.uri}: config.json asks for its own code ({', '.join(code)}), which is not taken; "
                "the model loads only if transformers knows its model_type, or where `code` names the files"
            )

    def _read_json(self, revision: str, file: SourceFile) -> Mapping[str, Any]:
        place = self._location.fetch(revision, [file], Silent())[file.path]
        try:
            content = json.loads(place.read_bytes())
        except ValueError as error:
            raise SourceError(
                f"{file.path} of {self._location.uri} is not JSON: {error}", fix="save it again"
            ) from None
        if not isinstance(content, dict):
            raise SourceError(f"{file.path} of {self._location.uri} is not a JSON object", fix="save it again")
        return content


def _named(path: str, files: Sequence[SourceFile]) -> SourceFile:
    return next(file for file in files if file.path == path)


def _is_safetensors(file: SourceFile) -> bool:
    return file.path.endswith(".safetensors")
