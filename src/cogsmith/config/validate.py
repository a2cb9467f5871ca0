"""Everything that is wrong with a parsed config.toml, collected in one go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from cogsmith.config import consistency, findings, forbidden, rules, translate
from cogsmith.config.document import Document
from cogsmith.config.findings import Finding, Refusal, show
from cogsmith.config.model import EXAMPLE
from cogsmith.config.raw import RawConfig
from cogsmith.errors import Problem


def validate(document: Document, root: Path, *, allow_placeholder: bool = False) -> list[Problem]:
    """Return every problem in the order of the file; none means that the document can be completed.

    Local paths are relative to `root`. `allow_placeholder` lets the example's account name stand.
    """
    found = list(forbidden.check(document.values))
    # What may stand nowhere is reported once, and not again for the rule of its key that it breaks too.
    spoilt = {finding.path for finding in found}
    found += [finding for finding in _rules(document, root) if finding.path not in spoilt]
    if not allow_placeholder:
        found += _placeholder(document)
    return findings.problems(found, document.positions)


def _rules(document: Document, root: Path) -> Iterator[Finding]:
    yield from _keys(document)
    yield from _names(document)
    for section in document.sections():
        yield from consistency.check(section, root)


def _keys(document: Document) -> Iterator[Finding]:
    try:
        RawConfig.model_validate(document.values)
    except ValidationError as error:
        yield from translate.findings(error)


def _names(document: Document) -> Iterator[Finding]:
    models = document.values.get("models", {})
    if not isinstance(models, dict):
        return
    if not models:
        yield Finding((), "no models", f"add a [models.NAME] section; {EXAMPLE} shows how")
    folded = Counter(name.lower() for name in models)
    for name in models:
        if name != name.lower() and folded[name.lower()] > 1:
            yield _twin(name, next(other for other in models if other != name and other.lower() == name.lower()))
        else:
            yield from _name(name)


def _twin(name: str, other: str) -> Finding:
    return Finding(
        ("models", name),
        f"{show(name)} and {show(other)} differ only in case, so they would share a folder on some machines",
        "give one of them another name, in small letters",
    )


def _name(name: str) -> Iterator[Finding]:
    try:
        rules.model_name(name)
    except Refusal as refusal:
        yield Finding(("models", name), refusal.message, refusal.fix)


def _placeholder(document: Document) -> Iterator[Finding]:
    prefix = document.values.get("dest_prefix")
    if isinstance(prefix, str) and rules.PLACEHOLDER in prefix:
        yield Finding(
            ("dest_prefix",),
            f"{show(prefix)} still has the example's account name",
            f"put your account's name in place of {rules.PLACEHOLDER}, "
            "or remove the line to build for this machine only",
        )
