"""What a foreign format must say to become a Hugging Face checkpoint folder. One importer is one module.

`converted.ConvertedSource` does the rest for all of them: it lists and fetches, keeps what was converted by the hash
of its inputs, writes in one step, and checks that the model which comes out uses every tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cogsmith.config.model import Precision
from cogsmith.sources.base import Reporter, SourceFile


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies at one of the model's sources, in the order in which the user named them."""

    uri: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What was chosen of a listing, on this disk: real files by their relative POSIX path there."""

    uri: str
    places: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Options:
    """How the user wants it read. All of it decides the bytes that come out.

    `llama_config` are JSON files, the later wins; `tokenizer` holds the files of a tokenizer given by hand.
    `max_seq_len` and `output_precision` are None where the format's own value stands. With `own_code` the model comes
    with its code, so a class that transformers does not have is kept as it is.
    """

    output_precision: Precision | None = None
    llama_type: str | None = None
    llama_config: tuple[Path, ...] = ()
    tokenizer: Part | None = None
    max_seq_len: int | None = None
    own_code: bool = False


class Importer(Protocol):
    """A format that is converted once. Its fields are constants.

    `version` counts up with every change that makes it write other bytes; `packages` are the distributions whose
    versions decide the bytes too, and without which it cannot run; `extra` is Cogsmith's extra that brings them.
    """

    @property
    def name(self) -> str:
        """What `format` calls it."""

    @property
    def version(self) -> int:
        """Which bytes it writes."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs, by the names of distributions."""

    @property
    def extra(self) -> str:
        """What brings those."""

    def recognises(self, files: Sequence[SourceFile]) -> bool:
        """Tell by names alone whether a source is in this format."""

    def select(self, listings: Sequence[Listing], options: Options) -> Sequence[tuple[SourceFile, ...]]:
        """Return the files that are needed, listing by listing. Raises SourceError with every fault at once.

        Nothing is here yet: of `options.tokenizer`, only the names of its files mean something.
        """

    def convert(self, parts: Sequence[Part], options: Options, folder: Path, reporter: Reporter) -> None:
        """Write a Hugging Face checkpoint into the empty `folder`. Raises SourceError or ConversionError.

        No code in the files runs. The tokenizer that is written reads PROBE_TEXTS as the source's own does.
        """
