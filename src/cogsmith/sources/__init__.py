"""Where weights come from, and what turns them into a Hugging Face checkpoint folder.

    base, importer                  the interfaces: Source, Location, Reporter, and what they answer; Importer
    locations                       from a URI to the location that it names
    hub, local, pypi, object_store  locations: where bytes are (hub_errors: the Hub's troubles in the user's words)
    part                            a folder, a file or what matches patterns of a location
    hf_folder, gguf/, converted     sources: a location read in one format
    composer/, accessory/           importers, each the format that a converted source is read in
    verify                          proof that a folder's weights are the model's that config.json names
    probe                           proof that a folder's tokenizer gives the ids of the source's own
    spm, spm_pipeline               a SentencePiece model as tokenizer.json (spm_normalization: its compiled rules;
                                    spm_rounding: what no tokenizer.json can give)
    tokenizer_files                 a tokenizer.json for a folder that has only older files
    custom_code, python_files       a model's own modelling files
    quantise                        a source whose weights are quantised on the way
    selection, safetensors_file     which files make a checkpoint, and whether they are whole
    made, hashing                   what is kept between runs: folders that were made, digests of files

`open_source` puts a location and a format together.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cogsmith.cache import cache_root
from cogsmith.config.model import Model
from cogsmith.errors import SourceError
from cogsmith.sources import custom_code
from cogsmith.sources.base import Location, Resolved, Source
from cogsmith.sources.converted import ConvertedSource
from cogsmith.sources.custom_code import CustomCode
from cogsmith.sources.formats import importers
from cogsmith.sources.gguf import GGUF_SUFFIX
from cogsmith.sources.gguf.source import GgufSource
from cogsmith.sources.hf_folder import HfFolderSource
from cogsmith.sources.importer import Importer
from cogsmith.sources.locations import locate
from cogsmith.sources.pypi import PypiLocation
from cogsmith.sources.quantise import QuantisedSource
from cogsmith.sources.selection import CONFIG, SAFETENSORS

__all__ = ["open_source", "read_code"]


def open_source(model: Model, cache: Path | None = None) -> Source:
    """Return the source that a model's canonical URI and format name.

    With the format "auto", a location that does not say is listed to find out. Raises SourceError for a URI that
    is not canonical and for weights that are not there.
    """
    cache = cache or cache_root()
    original = _open_original(model, cache)
    if model.quant and model.quant.at == "build":
        return QuantisedSource(original, model, model.quant, cache)
    return original


def read_code(model: Model, resolved: Resolved, cache: Path | None = None) -> CustomCode | None:
    """Return the Python files that `model` names, of this machine or of the source as it was `resolved`; None for none.

    Raises SourceError or ProblemsError: see `custom_code.read`.
    """
    at_hub = resolved.format == "hf" and model.source.startswith("hf:")
    pinned = replace(model, revision=resolved.revision) if at_hub else model
    if model.code and model.allow_patterns:
        # What is named is looked at, whatever the patterns are.
        pinned = replace(pinned, allow_patterns=(*model.allow_patterns, *model.code.files))
    return custom_code.read(model, resolved.shape, lambda: _locate(pinned.sources[0], pinned, cache or cache_root())[0])


def _open_original(model: Model, cache: Path) -> Source:
    location, file = _locate(model.sources[0], model, cache)
    format_ = _detect(location, file, model) if model.format == "auto" else model.format
    if format_ == "hf" and model.further_sources:
        # What comes on top of a Hugging Face folder is in another format.
        last = _locate(model.sources[-1], model, cache)[0]
        format_ = "composer" if _is_composers(last) else format_
    if importer := importers().get(format_):
        return _open_converted(importer, location, model, cache)
    _refuse_unused(model, format_)
    if format_ == "gguf":
        return GgufSource(location, file, model, cache)
    if file or isinstance(location, PypiLocation):
        raise SourceError(f'{model.source} is GGUF, not format "hf"', fix="leave out `format`, or name a repository")
    if model.output_precision:
        raise SourceError(
            f"{model.source} is not GGUF, so nothing converts it to output_precision = {model.output_precision!r}",
            fix="keep output_precision for models in GGUF; config.dtype says how other weights are loaded",
        )
    return HfFolderSource(location, cache, allow_pickle=model.allow_pickle, brings_code=model.code is not None)


def _is_composers(location: Location) -> bool:
    found = importers().get("composer")
    return found is not None and found.recognises(location.list()[1])


def _open_converted(importer: Importer, first: Location, model: Model, cache: Path) -> Source:
    further = [_locate(text, model, cache)[0] for text in model.further_sources]
    tokenizer = None
    if model.tokenizer:
        tokenizer, _ = locate(model.tokenizer, cache, downloads=model.source_cache)
    return ConvertedSource(importer, [first, *further], model, cache, tokenizer)


def _refuse_unused(model: Model, format_: str) -> None:
    """Raise SourceError for keys that a format, found out by its files' names, has no use for."""
    unused = [key for key in ("tokenizer", "llama_type", "llama_config") if getattr(model, key)]
    if model.further_sources:
        unused.append("several sources")
    if unused:
        kind = "GGUF" if format_ == "gguf" else "a Hugging Face folder"
        raise SourceError(
            f"{model.source} is read as {kind}, which has no use for: {', '.join(unused)}",
            fix="leave that out, or say which format it is: format",
        )


def _locate(text: str, model: Model, cache: Path) -> tuple[Location, str | None]:
    """Return the location of one of the model's sources and, where the URI names one, the GGUF file there."""
    return locate(text, cache, downloads=model.source_cache, patterns=model.allow_patterns)


def _detect(location: Location, file: str | None, model: Model) -> str:
    """Find out the format by names: what a URI or a key says, then what a Hugging Face folder must have, then others'.

    Files called otherwise, such as adapters, may lie beside any format. GGUF is the last guess: many a repository has
    such files beside its weights.
    """
    if file or isinstance(location, PypiLocation):
        return "gguf"
    if model.llama_type or model.llama_config:
        return "accessory"
    files = location.list()[1]
    paths = {found.path for found in files}
    suffixes = {Path(path).suffix.lower() for path in paths}
    if CONFIG in paths and not paths.isdisjoint(SAFETENSORS):
        return "hf"
    for name, importer in importers().items():
        if importer.recognises(files):
            return name
    return "gguf" if GGUF_SUFFIX in suffixes and ".safetensors" not in suffixes else "hf"
