"""Weights in a foreign format: an importer converts them once to a Hugging Face checkpoint folder, kept in the cache.

What an importer need not know is here: where its files come from, what is kept under which name, that a folder appears
whole or not at all, and that the model which comes out uses every tensor.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cogsmith.cache import atomic_folder
from cogsmith.config.model import MAX_SEQ_LEN, Model
from cogsmith.errors import MissingExtra, SourceError, UserError
from cogsmith.manifest import CAUSAL_LM, VECTORS
from cogsmith.sources import made
from cogsmith.sources.base import Checkpoint, Location, Reporter, Resolved, SourceFile
from cogsmith.sources.hashing import checked_sha256, sha256_file
from cogsmith.sources.importer import Importer, Listing, Options, Part
from cogsmith.sources.safetensors_file import count_parameters, read_header
from cogsmith.sources.selection import holds_vocabulary, tokenizer_files
from cogsmith.sources.silent import Silent
from cogsmith.sources.verify import verify_folder

VERSION = 1
"""Counts up with every change here that makes another folder of the same inputs; part of the cache's key."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True, slots=True)
class _Input:
    """One place that is read, at one revision, and the files of it that are needed."""

    location: Location
    revision: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """All that decides the bytes which come out, before any of it is here."""

    weights: tuple[_Input, ...]
    tokenizer: _Input | None
    options: Options

    @property
    def all(self) -> tuple[_Input, ...]:
        """The weights' places, and the tokenizer's."""
        return self.weights if self.tokenizer is None else (*self.weights, self.tokenizer)


class ConvertedSource:
    """What `importer` makes of `locations`, in their order, as the keys of `model` say.

    `tokenizer` is where a tokenizer given by hand lies; `cache` is the cache's root.
    """

    def __init__(
        self,
        importer: Importer,
        locations: Sequence[Location],
        model: Model,
        cache: Path,
        tokenizer: Location | None = None,
    ) -> None:
        self._importer = importer
        self._locations = locations
        self._model = model
        self._tokenizer = tokenizer
        self._cache = cache
        self._looked_up: _Inputs | None = None

    def resolve(self) -> Resolved:
        """Name the revision and every needed file. What comes out is sized exactly where it was converted before, else
        by the files that go in. Raises SourceError.
        """
        inputs = self._looked_up = self._look_up()
        files = tuple(file for place in inputs.all for file in place.files)
        folder = self._known_folder(inputs)
        return Resolved(
            uri=inputs.weights[0].location.uri,
            further_uris=tuple(place.location.uri for place in inputs.weights[1:]),
            revision=self._revision(inputs),
            conversion=self._conversion(),
            format=self._importer.name,
            files=files,
            checkpoint_bytes=sum(file.size for file in files) if folder is None else _size(folder),
            exact=folder is not None,
            parameters=None if folder is None else _parameters(folder),
        )

    def materialise(self, resolved: Resolved, reporter: Reporter) -> Checkpoint:
        """Fetch what is needed and convert it, unless that was done before.

        Raises MissingExtra before anything is fetched, then SourceError, ConversionError, or UserError where the disk
        is full; the cache only ever holds whole, verified folders.
        """
        versions = self._require_packages()
        inputs = self._inputs_of(resolved)
        parts = [_fetch(place, reporter, self._cache) for place in inputs.all]
        folder = self._folder(self._key(inputs, [digests for _, digests in parts], versions))
        if not folder.is_dir():
            weights = [part for part, _ in parts[: len(inputs.weights)]]
            tokenizer = parts[-1][0] if inputs.tokenizer else None
            self._convert(weights, replace(inputs.options, tokenizer=tokenizer), folder, reporter)
        checkpoint = made.checkpoint(folder, reporter, self._cache)
        if not holds_vocabulary(file.origin.name for file in checkpoint.files):
            reporter.note(f"{resolved.uri} comes without a tokenizer, so the model knows ids only; tokenizer names one")
        return checkpoint

    def _look_up(self) -> _Inputs:
        """List every place, and let the importer choose. Raises SourceError."""
        listed = [location.list() for location in self._locations]
        tokenizer = self._look_up_tokenizer()
        options = Options(
            output_precision=self._model.output_precision,
            llama_type=self._model.llama_type,
            llama_config=self._model.llama_config,
            tokenizer=None if tokenizer is None else _names(tokenizer),
            max_seq_len=self._model.model_args.get(MAX_SEQ_LEN),
            own_code=self._model.code is not None,
        )
        places = list(zip(self._locations, listed, strict=True))
        listings = [Listing(location.uri, tuple(files)) for location, (_, files) in places]
        chosen = self._importer.select(listings, options)
        weights = [
            _Input(location, revision, tuple(files))
            for (location, (revision, _)), files in zip(places, chosen, strict=True)
        ]
        return _Inputs(tuple(weights), tokenizer, options)

    def _look_up_tokenizer(self) -> _Input | None:
        if self._tokenizer is None:
            return None
        revision, listed = self._tokenizer.list()
        files = tokenizer_files(listed)
        if not files:
            raise SourceError(
                f"{self._tokenizer.uri} holds no tokenizer",
                fix="name a folder with tokenizer.json or tokenizer.model, or such a file",
            )
        return _Input(self._tokenizer, revision, files)

    def _inputs_of(self, resolved: Resolved) -> _Inputs:
        """Return what `resolved` came from. Raises SourceError where it has become something else."""
        inputs = self._looked_up or self._look_up()
        if self._revision(inputs) != resolved.revision:
            raise SourceError(f"{resolved.uri} changed since it was listed", fix="run again")
        return inputs

    def _revision(self, inputs: _Inputs) -> str:
        """Return the only place's own revision, or a hash over those of all that decide what comes out."""
        if len(inputs.all) == 1 and not inputs.options.llama_config:
            return inputs.weights[0].revision
        tokenizer = inputs.tokenizer
        return "sha256:" + made.hash_of(
            {
                "weights": [place.revision for place in inputs.weights],
                "tokenizer": tokenizer and [tokenizer.revision, *(file.path for file in tokenizer.files)],
                "llama_config": self._digests_of_configs(),
            }
        )

    def _conversion(self) -> str:
        """Say what decides the bytes besides the files that go in."""
        keys = {
            "output_precision": self._model.output_precision,
            "llama_type": self._model.llama_type,
            MAX_SEQ_LEN: self._model.model_args.get(MAX_SEQ_LEN),
        }
        given = [f"{key} = {value}" for key, value in keys.items() if value is not None]
        return ", ".join([f"{self._importer.name} {self._importer.version}", *given])

    def _digests_of_configs(self) -> list[str]:
        return [sha256_file(path, cache=self._cache) for path in self._model.llama_config]

    def _key(self, inputs: _Inputs, digests: Sequence[Mapping[str, str]], versions: Mapping[str, str]) -> str:
        """Return the name of the folder: a hash of all that decides its bytes."""
        options = inputs.options
        return made.hash_of(
            {
                "importer": [self._importer.name, self._importer.version, VERSION],
                "packages": versions,
                "inputs": [sorted(files.items()) for files in digests],
                "has_tokenizer": inputs.tokenizer is not None,
                "output_precision": options.output_precision,
                "llama_type": options.llama_type,
                "llama_config": self._digests_of_configs(),
                "max_seq_len": options.max_seq_len,
                "own_code": options.own_code,
                # For vectors, a head is not looked at.
                **({} if self._head == CAUSAL_LM else {"task": self._head}),
            }
        )

    def _folder(self, key: str) -> Path:
        return self._cache / self._importer.name / key

    def _require_packages(self) -> dict[str, str]:
        """Return the versions of the packages that the importer needs. Raises MissingExtra."""
        try:
            return {package: version(package) for package in self._importer.packages}
        except PackageNotFoundError as error:
            raise MissingExtra(self._importer.extra, f"Converting {self._model.source}") from error

    def _known_folder(self, inputs: _Inputs) -> Path | None:
        """Return the folder of an earlier conversion, where everything that names it is on this machine."""
        if not all(file.cached for place in inputs.all for file in place.files):
            return None
        try:
            versions = self._require_packages()
            parts = [_fetch(place, Silent(), self._cache) for place in inputs.all]
        except (MissingExtra, SourceError):
            return None
        folder = self._folder(self._key(inputs, [digests for _, digests in parts], versions))
        return folder if folder.is_dir() else None

    @property
    def _head(self) -> str:
        """The task by which the weights are checked: one for vectors has no use for a head."""
        return self._model.task if self._model.task in VECTORS else CAUSAL_LM

    def _convert(self, weights: Sequence[Part], options: Options, folder: Path, reporter: Reporter) -> None:
        with _full_disk_explained(self._model.source, folder), atomic_folder(folder) as unfinished:
            self._importer.convert(weights, options, unfinished, reporter)
            verify_folder(unfinished, reporter=reporter, own_code=options.own_code, task=self._head)


def _fetch(place: _Input, reporter: Reporter, cache: Path) -> tuple[Part, dict[str, str]]:
    """Bring the files of one place here; return them, and the SHA-256 of each."""
    places = place.location.fetch(place.revision, place.files, reporter)
    digests = {file.path: checked_sha256(places[file.path], file, reporter, cache=cache) for file in place.files}
    return Part(place.location.uri, places), digests


def _names(tokenizer: _Input) -> Part:
    """Return a tokenizer that was listed and not fetched: an importer that selects sees the names of its files."""
    return Part(tokenizer.location.uri, {file.path: Path(file.path) for file in tokenizer.files})


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _parameters(folder: Path) -> int | None:
    files = list(folder.glob("*.safetensors"))
    return sum(count_parameters(read_header(file)) for file in files) if files else None


@contextmanager
def _full_disk_explained(source: str, folder: Path) -> Iterator[None]:
    """Say that the disk is full in the user's words, whichever library met it."""
    try:
        yield
    except Exception as error:
        in_words = any(words in str(error) for words in _FULL_IN_WORDS)
        if not in_words and not (isinstance(error, OSError) and error.errno in _FULL):
            raise
        raise UserError(
            f"the disk is full: {source} could not be converted in {folder.parent}",
            fix="free some space, or set COGSMITH_CACHE to a folder on a larger disk",
        ) from error
