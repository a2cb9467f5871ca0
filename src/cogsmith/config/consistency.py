"""What the keys of one model must say together, `[defaults]` included.

Each check reads the merged values as they are, wrong types among them, and keeps to what it can judge: what is
wrong with a single key is said elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cogsmith import quant
from cogsmith.config import engines, uri
from cogsmith.config.document import Section
from cogsmith.config.findings import Finding, Refusal, show
from cogsmith.config.model import WORK, CogSettings
from cogsmith.config.uri import SourceUri


def check(section: Section, root: Path) -> Iterator[Finding]:
    """Yield what is contradictory or missing in one model. Local paths are relative to `root`."""
    yield from _one_source(section)
    yield from _revision(section)
    yield from _local_path(section, root)
    yield from _quantisation(section)
    yield from engines.check(section)
    yield from _python(section)
    yield from _limits(section)


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


def _revision(section: Section) -> Iterator[Finding]:
    version, source = section.get("huggingface", "version"), _source(section)
    if version is None or source is None:
        return
    path = section.origin("huggingface", "version")
    if source.scheme != "hf":
        message = f"{show(version)} is a revision, and a {source.scheme}: source has none"
        yield Finding(path, message, "remove huggingface.version")
    elif source.revision is not None:
        message = f"two revisions: {show(version)} here, {show(source.revision)} in source"
        yield Finding(path, message, "keep one of the two")


def _local_path(section: Section, root: Path) -> Iterator[Finding]:
    source = _source(section)
    if source is None or source.scheme != "path":
        return
    folder = Path(source.beneath(root).body)
    if not folder.exists():
        hub = f"; for a repository on the Hugging Face Hub write {show('hf:' + source.body)}"
        yield Finding(
            section.origin("source"),
            f"{str(folder)!r} does not exist",
            "give an existing folder or file, relative to config.toml's folder"
            + (hub if _is_repo(source.body) else ""),
        )
        return
    folder, work = folder.resolve(), (root / WORK).resolve()
    if folder.is_relative_to(work) or work.is_relative_to(folder):
        # A build would replace its own source, or find itself in it and never be the same twice.
        place = "inside" if folder.is_relative_to(work) else "around"
        message = f"{show(str(folder))} is {place} {work}, which builds write"
        yield Finding(section.origin("source"), message, f"move the weights to a folder beside {WORK}/")


def _quantisation(section: Section) -> Iterator[Finding]:
    own, arguments = _table(section, "quant"), _table(section, "config")
    faults = quant.upstream_faults(arguments)
    faults += quant.contradictions(own, {key: f"quant.{key}" for key in own})
    ways = [*(["quant"] if own else []), *[f"config.{key}" for key in quant.UPSTREAM if arguments.get(key)][:1]]
    ways += ["config.quantization_config"] if arguments.get("quantization_config") else []
    if len(ways) > 1:
        faults.append(quant.Fault(ways[-1], f"{ways[0]} and {ways[-1]} both say how to quantise", "keep one of them"))
    if own.get("require_cuda") is True and section.get("cog", "gpu") is False:
        message = "quant.require_cuda is true, and cog.gpu = false gives the container no GPU"
        faults.append(quant.Fault("quant.require_cuda", message, "change one of the two"))
    for fault in faults:
        yield Finding(section.origin(*fault.key.split(".", 1)), fault.message, fault.fix)


def _table(section: Section, key: str) -> Mapping[str, Any]:
    table = section.get(key)
    return table if isinstance(table, dict) else {}


def _python(section: Section) -> Iterator[Finding]:
    concurrency = section.get("cog", "concurrency")
    at_once = CogSettings().concurrency if concurrency is None else concurrency
    if section.get("cog", "python") == "3.10" and _is_count(at_once) and at_once > 1:
        yield Finding(
            section.origin("cog", "python"),
            f"Python 3.10 runs one prediction at a time, and cog.concurrency is {at_once}",
            'set cog.python = "3.11" or newer, or cog.concurrency = 1',
        )


def _limits(section: Section) -> Iterator[Finding]:
    context, tokens = section.get("limits", "max_context"), section.get("limits", "max_tokens")
    if _is_count(context) and _is_count(tokens) and tokens > context:
        yield Finding(
            section.origin("limits", "max_tokens"),
            f"max_tokens ({tokens}) is more than max_context ({context}) can hold",
            f"set limits.max_tokens to {context} or less",
        )


def _source(section: Section) -> SourceUri | None:
    text = section.get("source")
    try:
        return uri.parse(text) if isinstance(text, str) else None
    except Refusal:
        return None


def _is_repo(text: str) -> bool:
    try:
        return text.count("/") == 1 and bool(uri.parse(f"hf:{text}"))
    except Refusal:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
