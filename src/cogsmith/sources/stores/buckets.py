"""The stores that have buckets: s3, gs, az (also written azure) and oci, over fsspec's filesystems."""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.callbacks import Callback

from cogsmith.errors import SourceError
from cogsmith.sources.base import Task
from cogsmith.sources.stores import credentials, faults
from cogsmith.sources.stores.base import Interrupted, StoredObject, md5_of

_T = TypeVar("_T")

BLOCK_BYTES = 8 * 2**20
BLOCKS_AHEAD = 4
NAMES_TO_SHOW = 5

_MD5 = re.compile(r"[0-9a-f]{32}")
_VERSIONS = ("generation", "etag", "timeModified", "last_modified", "LastModified", "updated", "mtime")
"""What tells one version of an object from another, in the words of all stores, the surest first."""


class Bucket:
    """One bucket. Keys are BUCKET/PATH, with oci's BUCKET@NAMESPACE/PATH.

    Reading asks for blocks, some of them ahead of time: one connection rarely fills the line.
    """

    def __init__(self, uri: str) -> None:
        scheme = uri.partition("://")[0]
        self.uri = uri
        self._shown_scheme = scheme
        self._scheme = {"azure": "az"}.get(scheme, scheme)

    def describe(self, key: str) -> StoredObject | None:
        """Return what is at `key` now; None where there is no object. Raises SourceError."""
        if "/" not in key:
            return None  # a bucket
        with self._explained(key):
            facts = _unless_missing(lambda: self._filesystem.info(key))
            if facts is None or facts["type"] != "file" or key.endswith("/"):
                return None
            return self._with_digest(_stored(key, facts))

    def below(self, key: str) -> Sequence[StoredObject]:
        """Return all objects in the folder `key`, and in folders there. Raises SourceError."""
        with self._explained(key):
            found = _unless_missing(lambda: self._filesystem.find(key, detail=True)) or {}
        prefix = key.rstrip("/") + "/"
        return [
            _stored(name, facts)
            for name, facts in found.items()
            if facts["type"] == "file" and name.startswith(prefix) and not name.endswith("/")
        ]

    def read(self, stored: StoredObject, start: int) -> tuple[int, Generator[bytes]]:
        """Return `start`, and the content from there on. Raises SourceError or Interrupted while it is read."""
        return start, self._blocks(stored, start)

    def link_targets(self, link: StoredObject, text: str) -> Sequence[str]:
        """Return the keys that `text` may mean: Composer writes a name in the bucket, or a whole URI."""
        bucket, folder = link.key.partition("/")[0], link.key.rpartition("/")[0]
        scheme, marked, rest = text.partition("://")
        if not marked:
            return [f"{bucket}/{text.lstrip('/')}", f"{folder}/{text.lstrip('/')}"]
        if scheme != self._shown_scheme or rest.partition("/")[0] != bucket:
            raise SourceError(
                f"{self._address(link.key)} leads out of its bucket", fix="name the object that is meant itself"
            )
        return [rest]

    def missing(self, key: str) -> SourceError:
        """Say that there is nothing at `key`, and what is near."""
        bucket = key.partition("/")[0]
        with self._explained(bucket):
            if _unless_missing(lambda: self._filesystem.ls(bucket, detail=False)) is None:
                return faults.no_bucket(self._address(bucket))
        near = self._near(key)
        hint = f"; there are {', '.join(near)}" if near else ""
        return SourceError(f"{self._address(key)} is not there, or is empty", fix=f"check the name{hint}")

    def put(self, file: Path, key: str, task: Task) -> None:
        """Write `file` to `key` in one step: a reader sees the old or the new object. Raises SourceError."""
        with self._explained(key):
            self._filesystem.put_file(str(file), key, callback=_Feeding(task))

    def remove(self, key: str) -> None:
        """Delete the object at `key`. Raises SourceError."""
        with self._explained(key):
            try:
                self._filesystem.rm_file(key)
            except NotImplementedError:  # ocifs has the general call only
                self._filesystem.rm(key)

    @cached_property
    def _filesystem(self) -> AbstractFileSystem:
        return credentials.open_filesystem(self._scheme, self.uri)

    def _blocks(self, stored: StoredObject, start: int) -> Generator[bytes]:
        with ThreadPoolExecutor(BLOCKS_AHEAD) as pool:
            waiting: deque[Future[bytes]] = deque()
            for begin in range(start, stored.size, BLOCK_BYTES):
                waiting.append(pool.submit(self._block, stored, begin, min(begin + BLOCK_BYTES, stored.size)))
                if len(waiting) == BLOCKS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _block(self, stored: StoredObject, begin: int, end: int) -> bytes:
        with self._explained(stored.key, passing=Interrupted):
            content: bytes = self._filesystem.cat_file(stored.key, start=begin, end=end)
        if len(content) != end - begin:
            raise Interrupted(f"{len(content)} bytes came of {end - begin}")
        return content

    def _with_digest(self, stored: StoredObject) -> StoredObject:
        """Add what s3fs leaves out: whether an S3 entity tag is the content's MD5.

        It is not for an upload in parts, which has a dash in it, nor under a customer's or KMS key:
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
        """
        if not hasattr(self._filesystem, "call_s3") or not _MD5.fullmatch(stored.version):
            return stored
        bucket, _, path = stored.key.partition("/")
        head = self._filesystem.call_s3("head_object", Bucket=bucket, Key=path)
        if head.get("ServerSideEncryption", "AES256") != "AES256" or head.get("SSECustomerAlgorithm"):
            return stored
        return replace(stored, md5=stored.version)

    def _near(self, key: str) -> list[str]:
        folder, _, name = key.rpartition("/")
        with suppress(Exception):
            names = [str(entry).rstrip("/").rpartition("/")[2] for entry in self._filesystem.ls(folder, detail=False)]
            return difflib.get_close_matches(name, names, n=NAMES_TO_SHOW, cutoff=0.5)
        return []

    def _address(self, key: str) -> str:
        return f"{self._shown_scheme}://{key}"

    @contextmanager
    def _explained(self, key: str, passing: Callable[[str], Exception] | None = None) -> Iterator[None]:
        """Turn a store's exceptions into ours; those that may pass into `passing`, where it is given."""
        try:
            yield
        except Exception as error:
            if isinstance(error, SourceError) or not faults.is_foreign(error):
                raise
            if passing and faults.kind(error) == "passing":
                raise passing(faults.reason(error)) from None
            raise faults.explain(error, self._address(key), self._scheme) from None


class _Feeding(Callback):  # type: ignore[misc]
    """fsspec's progress, handed on."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task
        self._told = 0

    def relative_update(self, inc: int = 1) -> None:
        self._task.advance(inc)
        self._told += inc

    def absolute_update(self, value: int) -> None:
        self._task.advance(value - self._told)
        self._told = value


def _unless_missing(ask: Callable[[], _T]) -> _T | None:
    """Return the answer; None where the store says that there is no such thing."""
    try:
        return ask()
    except Exception as error:
        if faults.is_foreign(error) and faults.kind(error) == "missing":
            return None
        raise


def _stored(key: str, facts: Mapping[str, Any]) -> StoredObject:
    words = {str(name).lower(): value for name, value in facts.items()}
    found = (words.get(name.lower()) for name in _VERSIONS)
    version = next((str(value).strip('"') for value in found if value), "")
    return StoredObject(key, key.rpartition("/")[2], int(words["size"]), version, _md5(words))


def _md5(facts: Mapping[str, Any]) -> str | None:
    """Return the MD5 that gs (md5Hash), oci (md5) and az (content_md5) give, all of them of the whole content."""
    encoded = facts.get("md5hash") or facts.get("md5")
    if isinstance(encoded, str):
        return md5_of(encoded)
    # Azure's settings are an object of their own, or a dictionary.
    settings = facts.get("content_settings") or {}
    digest = settings.get("content_md5")
    return bytes(digest).hex() if digest else None
