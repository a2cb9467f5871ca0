"""What the keys that say where weights come from, and how they are read, must say together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cogsmith.config import code, uri
from cogsmith.config.document import Section
from cogsmith.config.findings import Finding, Refusal, show
from cogsmith.config.model import WORK
from cogsmith.config.positions import KeyPath
from cogsmith.config.uri import SourceUri

_CONVERTED = ("auto", "composer", "accessory")
_LLAMA = ("auto", "accessory")


def check(section: Section, root: Path) -> Iterator[Finding]:
    """Yield what is contradictory or missing about one model's weights. Local paths are relative to `root`."""
    yield from _one_source(section)
    yield from _several(section)
    yield from _revision(section)
    yield from _format(section)
    yield from code.check(section)
    yield from _output(section, root)
    yield from _local_paths(section, root)


def _one_source(section: Section) -> Iterator[Finding]:
    source, repo = section.get("source"), section.get("huggingface", "repo")
    if source is None and repo is None:
        yield Finding(
            ("models", section.name),
            "the model names no weights",
            'add source = "..." or huggingface.repo = "ORG/REPO"',
        )
    elif source is not None and repo is not None:
        yield Finding(
            section.origin("source"),
            f"both source ({show(source)}) and huggingface.repo ({show(repo)}) name weights",
            "keep one of the two",
        )


def _several(section: Section) -> Iterator[Finding]:
    sources, format_ = section.get("source"), section.get("format")
    if sources == []:
        yield Finding(section.origin("source"), "the list names no weights", 'write source = "..."')
    elif isinstance(sources, list) and len(sources) > 1 and _is_not(format_, _CONVERTED):
        yield Finding(
            section.origin("source"),
            f"{len(sources)} sources, and format {show(format_)} is made from one",
            'name one, or say format = "accessory" or "composer", where the first is the base of the others',
        )


def _revision(section: Section) -> Iterator[Finding]:
    version, sources = section.get("huggingface", "version"), _sources(section)
    if version is None or not sources:
        return
    path, first = section.origin("huggingface", "version"), sources[0]
    if len(sources) > 1:
        yield Finding(path, f"{show(version)} is one revision, and there are several sources", "write hf:ORG/REPO@...")
    elif first.scheme != "hf":
        yield Finding(
            path,
            f"{show(version)} is a revision, and {first.scheme}: sources have none",
            "remove huggingface.version",
        )
    elif first.revision is not None:
        message = f"two revisions: {show(version)} here, {show(first.revision)} in source"
        yield Finding(path, message, "keep one of the two")


def _format(section: Section) -> Iterator[Finding]:
    """Refuse keys that the named format has no use for."""
    format_ = section.get("format")
    for key, formats in (("llama_type", _LLAMA), ("llama_config", _LLAMA), ("tokenizer", _CONVERTED)):
        if section.get(key) is not None and _is_not(format_, formats):
            wanted = " or ".join(f'"{name}"' for name in formats if name != "auto")
            yield Finding(
                section.origin(key),
                f"{key} is given, and format {show(format_)} takes none",
                f"remove it; it is for {wanted}",
            )


def _output(section: Section, root: Path) -> Iterator[Finding]:
    output = section.get("output")
    if not isinstance(output, dict) or not output:
        return
    if "uri" not in output:
        yield Finding(section.origin("output"), "output names no place", 'add output.uri = "..."')
        return
    place = _parsed(output["uri"])
    if place is not None and place.scheme == "path":
        folder = Path(place.beneath(root).body)
        yield from _outside_work(folder, root, section.origin("output", "uri"), "the output")


def _local_paths(section: Section, root: Path) -> Iterator[Finding]:
    for key in ("source", "tokenizer"):
        for path, text in _texts(section, key):
            source = _parsed(text)
            if source is not None and source.scheme == "path":
                yield from _weights_path(Path(source.beneath(root).body), source, root, path)
    for keys in (("llama_config",), ("code", "path")):
        for path, text in _texts(section, *keys):
            place = _beneath(text, root)
            if text.strip() and not place.exists():
                yield Finding(path, f"{str(place)!r} does not exist", _relative("file"))
    for path, text in _texts(section, "source_cache"):
        if text.strip():
            yield from _outside_work(_beneath(text, root), root, path, "the cache")


def _weights_path(folder: Path, source: SourceUri, root: Path, path: KeyPath) -> Iterator[Finding]:
    if folder.exists():
        # A build would replace its own source, or find itself in it and never be the same twice.
        yield from _outside_work(folder, root, path, "the weights")
        return
    hub = f"; for a repository on the Hugging Face Hub write {show('hf:' + source.body)}"
    yield Finding(
        path,
        f"{str(folder)!r} does not exist",
        _relative("folder or file") + (hub if _is_repo(source.body) else ""),
    )


def _outside_work(folder: Path, root: Path, path: KeyPath, what: str) -> Iterator[Finding]:
    folder, work = folder.resolve(), (root / WORK).resolve()
    if folder.is_relative_to(work) or work.is_relative_to(folder):
        place = "inside" if folder.is_relative_to(work) else "around"
        message = f"{show(str(folder))} is {place} {work}, which builds write"
        yield Finding(path, message, f"move {what} to a folder beside {WORK}/")


def _relative(kind: str) -> str:
    return f"give an existing {kind}, relative to config.toml's folder"


def _beneath(text: str, root: Path) -> Path:
    return root / Path(text).expanduser()


def _texts(section: Section, *keys: str) -> Iterator[tuple[KeyPath, str]]:
    """Yield each text of a key that takes one or a list, and where it stands."""
    value = section.get(*keys)
    if isinstance(value, str):
        yield section.origin(*keys), value
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, str):
            yield (*section.origin(*keys), index), item


def _sources(section: Section) -> list[SourceUri]:
    parsed = [_parsed(text) for _, text in _texts(section, "source")]
    return [source for source in parsed if source is not None]


def _parsed(text: Any) -> SourceUri | None:
    try:
        return uri.parse(text) if isinstance(text, str) else None
    except Refusal:
        return None


def _is_not(format_: Any, formats: tuple[str, ...]) -> bool:
    return format_ is not None and format_ not in formats


def _is_repo(text: str) -> bool:
    return text.count("/") == 1 and _parsed(f"hf:{text}") is not None
