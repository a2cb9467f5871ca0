"""What a checkpoint lacks of its model, from a folder that is named before it: source = [BASE, CHECKPOINT].

An adapter saved alone lacks the weights that it adapts, and what Composer 0.13.5 saved with save_weights_only lacks
the config. Neither says where to find it, so the user does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cogsmith.errors import SourceError
from cogsmith.sources.base import SourceFile
from cogsmith.sources.composer.weights import Weights
from cogsmith.sources.importer import Listing, Part
from cogsmith.sources.safetensors_file import read_header
from cogsmith.sources.selection import CONFIG, SAFETENSORS, holds_vocabulary, tokenizer_files
from cogsmith.sources.write_safetensors import stored_tensors

_SHARD = re.compile(r"model(?:-\d{5}-of-(?P<count>\d{5}))?\.safetensors")


@dataclass(frozen=True, slots=True)
class Base:
    """A folder's config.json, its weights by name, and its tokenizer; the last two may be missing."""

    config: Mapping[str, Any]
    weights: Weights
    tokenizer: Part | None


def choose_base(listing: Listing) -> tuple[SourceFile, ...]:
    """Return the files that say which model it is: config.json, weights, tokenizer.

    Raises SourceError without config.json, and where shards are missing.
    """
    by_path = {file.path: file for file in listing.files}
    if CONFIG not in by_path:
        raise SourceError(
            f"{listing.uri} has no {CONFIG}, and so does not say which model the checkpoint after it is of",
            fix="name a Hugging Face folder first: source = [BASE, CHECKPOINT]",
        )
    weights = [path for path in by_path if _SHARD.fullmatch(path)]
    counts = {int(match["count"]) for path in weights if (match := _SHARD.fullmatch(path)) and match["count"]}
    if SAFETENSORS[0] in weights:
        weights = [SAFETENSORS[0]]
    elif counts and counts != {len(weights)}:
        said = " or ".join(map(str, sorted(counts)))
        raise SourceError(f"{listing.uri} has {len(weights)} shards of {said}", fix="copy the whole folder")
    return (by_path[CONFIG], *(by_path[path] for path in sorted(weights)), *tokenizer_files(listing.files))


def read_base(part: Part) -> Base:
    """Read what `choose_base` chose. Raises SourceError for what is damaged."""
    weights: Weights = {}
    for path in (path for path in part.places if _SHARD.fullmatch(path)):
        read_header(part.places[path])  # whole, and sound
        weights |= {tensor.name: tensor for tensor in stored_tensors(part.places[path])}
    rest = {path: place for path, place in part.places.items() if path != CONFIG and not _SHARD.fullmatch(path)}
    tokenizer = Part(part.uri, rest) if holds_vocabulary(rest) else None
    try:
        config = json.loads(part.places[CONFIG].read_bytes())
    except ValueError as error:
        raise SourceError(f"{CONFIG} of {part.uri} is not JSON: {error}", fix="fetch or save it again") from None
    return Base(config if isinstance(config, dict) else {}, weights, tokenizer)
