"""Weights in an object store or on a web server: s3, gs, az (or azure), oci, http and https.

    s3://BUCKET/PATH    a folder, with all folders in it, or one object
    https://HOST/PATH   one file

What comes is kept in the cache by address and version, and is fetched once. An object called NAME.symlink, whose text
names another object, stands for NAME: so Composer writes links where a store has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from cogsmith.cache import write_atomically
from cogsmith.errors import SourceError
from cogsmith.sources.base import Reporter, SourceFile, Task
from cogsmith.sources.hashing import fingerprint, sha256_file
from cogsmith.sources.safetensors_file import count_parameters, read_header
from cogsmith.sources.silent import Silent
from cogsmith.sources.stores.base import LINK_SUFFIX, Store, StoredObject
from cogsmith.sources.stores.buckets import Bucket
from cogsmith.sources.stores.download import download
from cogsmith.sources.stores.upload import upload
from cogsmith.sources.stores.web import WebServer

__all__ = ["SCHEMES", "ObjectStoreLocation", "upload"]

SCHEMES = frozenset({"s3", "gs", "az", "azure", "oci", "http", "https"})
FILES_AT_ONCE = 4
LINKS_IN_A_ROW = 4
LINK_BYTES = 4096
"""A link holds a name; what is longer is something else."""

# Hidden, and all the same part of a checkpoint: torch.distributed's list of what is in which file.
_TORCH_INDEX = ".metadata"
# What some tools leave to make a folder visible.
_FOLDER_MARKER = "_$folder$"


class ObjectStoreLocation:
    """A folder of objects, or one. The first look nails their versions; the revision is a hash over those."""

    def __init__(self, uri: str, cache: Path) -> None:
        self._store: Store = WebServer(uri) if urlsplit(uri).scheme in ("http", "https") else Bucket(uri)
        self.uri = self._store.uri
        self._key = uri if isinstance(self._store, WebServer) else uri.partition("://")[2]
        self._cache = cache / "objects"
        self._objects: dict[str, StoredObject] | None = None
        self._came_now: set[str] = set()

    def list(self) -> tuple[str, Sequence[SourceFile]]:
        """Return the revision and all files, hidden ones left out. Raises SourceError or MissingExtra."""
        objects = self._listed()
        # Over versions: most stores do not know a SHA-256.
        revision = fingerprint(SourceFile(path, stored.size, stored.version) for path, stored in objects.items())
        return revision, [self._described(path, stored) for path, stored in sorted(objects.items())]

    def fetch(self, revision: str, files: Sequence[SourceFile], reporter: Reporter) -> dict[str, Path]:
        """Download what is missing; return each file's real path. Raises SourceError.

        A transfer that is cut goes on where it stopped, now or in the next run.
        """
        if self.list()[0] != revision:
            raise SourceError(f"{self.uri} is no longer what was resolved", fix="run again to use what is there")
        chosen = {file.path: self._listed()[file.path] for file in files}
        missing = {path: stored for path, stored in chosen.items() if not self._is_here(stored)}
        if missing:
            total = sum(stored.size for stored in missing.values())
            with reporter.task(f"Fetching {self.uri}", total) as task:
                self._download(list(missing.values()), task)
        return {path: self._place(stored).resolve() for path, stored in chosen.items()}

    def parameters(self, revision: str, file: SourceFile) -> int | None:
        """Return how many parameters a safetensors file holds; None where it is not here yet."""
        place = self._place(self._listed()[file.path])
        return count_parameters(read_header(place)) if file.cached else None

    def _download(self, objects: Sequence[StoredObject], task: Task) -> None:
        """Bring `objects`; where one fails, or the user stops it, the others stop where they are."""
        stoppable = _Stoppable(task)
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            # Each once: two names may mean one object.
            waiting = [pool.submit(self._bring, stored, stoppable) for stored in dict.fromkeys(objects)]
            try:
                for one in as_completed(waiting):
                    one.result()
            finally:
                stoppable.stop()
                pool.shutdown(wait=False, cancel_futures=True)

    def _bring(self, stored: StoredObject, task: Task) -> None:
        place = self._place(stored)
        if not stored.version:
            place.unlink(missing_ok=True)
        download(self._store, stored, place, task)
        write_atomically(_digest_of(place), sha256_file(place).encode())
        self._came_now.add(stored.key)

    def _described(self, path: str, stored: StoredObject) -> SourceFile:
        """Return the file with the SHA-256 that it came with: work directories link to it, and may be written to."""
        if not self._is_here(stored):
            return SourceFile(path, stored.size)
        return SourceFile(path, stored.size, _read(_digest_of(self._place(stored))), cached=True)

    def _is_here(self, stored: StoredObject) -> bool:
        """Whether the object need not be fetched. One without a version may be another by the next run."""
        place = self._place(stored)
        known = stored.version or stored.key in self._came_now
        return bool(known) and place.is_file() and place.stat().st_size == stored.size

    def _place(self, stored: StoredObject) -> Path:
        identity = f"{self._store.uri.partition(':')[0]}\0{stored.key}\0{stored.version}\0{stored.size}"
        return self._cache / hashlib.sha256(identity.encode()).hexdigest()[:32] / stored.name

    def _listed(self) -> dict[str, StoredObject]:
        if self._objects is None:
            self._objects = self._look(self._key)
        return self._objects

    def _look(self, key: str, links: int = 0) -> dict[str, StoredObject]:
        """Return the objects at `key` by path: one, or a folder's, or those that a link at KEY.symlink names."""
        if single := self._store.describe(key):
            return {single.name: single}
        if below := self._store.below(key):
            return self._with_links(_visible(below, key.rstrip("/") + "/", self.uri))
        link = self._store.describe(key.rstrip("/") + LINK_SUFFIX)
        if link is None:
            raise self._store.missing(key)
        if links == LINKS_IN_A_ROW:
            raise SourceError(f"{self.uri}: links lead from one to the next", fix="name the object that is meant")
        return self._look(self._target(link), links + 1)

    def _with_links(self, objects: Mapping[str, StoredObject]) -> dict[str, StoredObject]:
        """Put what is meant in the place of a link, as in a folder on a disk, where that is in this folder too."""
        by_key = {stored.key: stored for stored in objects.values()}
        resolved: dict[str, StoredObject] = {}
        for path, stored in objects.items():
            plain = path.removesuffix(LINK_SUFFIX)
            is_link = plain != path and plain not in objects
            keys = self._store.link_targets(stored, self._text(stored)) if is_link else []
            target = next((by_key[key] for key in keys if key in by_key), None)
            resolved |= {plain: target} if target else {path: stored}
        return resolved

    def _target(self, link: StoredObject) -> str:
        """Return the first key that `link` may mean where there is something. Raises SourceError."""
        text = self._text(link)
        keys = self._store.link_targets(link, text) if text else []
        for key in keys:
            if self._store.describe(key) or self._store.below(key) or self._store.describe(key + LINK_SUFFIX):
                return key
        raise SourceError(
            f"{self.uri}: {link.name} names {text!r}, and there is no such object", fix="name the object that is meant"
        )

    def _text(self, link: StoredObject) -> str:
        """Return what a link says, from the cache where it is there; nothing where it is no link's text."""
        if link.size > LINK_BYTES:
            return ""
        if not self._is_here(link):
            self._bring(link, Silent())
        return self._place(link).read_text("utf-8", errors="replace").strip()


class _Stoppable:
    """A task that ends the work which tells it of progress."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._stopped = False

    def stop(self) -> None:
        """Let the next word of progress end whoever says it."""
        self._stopped = True

    def advance(self, amount: int) -> None:
        if self._stopped:
            raise CancelledError
        self._task.advance(amount)


def _digest_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.sha256")


def _read(file: Path) -> str | None:
    try:
        return file.read_text("ascii")
    except FileNotFoundError:
        return None


def _visible(objects: Sequence[StoredObject], prefix: str, uri: str) -> dict[str, StoredObject]:
    """Return the objects by path below `prefix`, without what is hidden and what only marks a folder."""
    keys = {stored.key for stored in objects}
    folders = {parent.as_posix() for key in keys for parent in PurePosixPath(key).parents}
    found = {
        stored.key.removeprefix(prefix): stored
        for stored in objects
        if stored.size or (stored.key not in folders and not stored.key.endswith(_FOLDER_MARKER))
    }
    visible = {path: stored for path, stored in found.items() if not _is_hidden(path)}
    odd = sorted(path for path in visible if "\\" in path or not all(path.split("/")))
    if odd:
        raise SourceError(f"{uri} has names that are no paths: {', '.join(map(repr, odd))}", fix="rename them")
    if not visible:
        raise SourceError(f"{uri} holds no files but hidden ones", fix="check the name")
    return visible


def _is_hidden(path: str) -> bool:
    *folders, name = path.split("/")
    return any(part.startswith(".") for part in folders) or (name.startswith(".") and name != _TORCH_INDEX)
