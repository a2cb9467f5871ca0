"""A repository of the Hugging Face Hub, through huggingface_hub and its own cache.

Environment variables are read at each call, not when a module is imported: HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE,
HF_HOME.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import httpx2
from huggingface_hub import HfApi, get_cached_repo_tree, get_token, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils.tqdm import tqdm

from cogsmith.errors import SourceError
from cogsmith.sources.base import Reporter, SourceFile, Task
from cogsmith.sources.hub_errors import FOREIGN_ERRORS, Asked, explain, telling
from cogsmith.sources.safetensors_file import count_parameters, read_header

DEFAULT_ENDPOINT = "https://huggingface.co"
REQUEST_SECONDS = 30.0
REVISIONS_TO_NAME = 8
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of a commit; `etag` names its blob in the cache and is its SHA-256 where the file is in LFS."""

    path: str
    size: int
    etag: str

    @property
    def sha256(self) -> str | None:
        return self.etag if _SHA256.fullmatch(self.etag) else None


_Tree = tuple[str, list[_Entry]]
"""A full commit and its files."""


class HubLocation:
    """One repository at one revision: a branch, a tag or a commit. The first look nails it to a full commit.

    `cache` is where files are kept, as huggingface_hub lays them out; left out, in its own cache.
    """

    def __init__(self, repo: str, revision: str | None = None, cache: Path | None = None) -> None:
        self.uri = f"hf:{repo}"
        self._cache = cache
        self._repo = repo
        self._requested = revision or "main"
        self._tree: _Tree | None = None

    def list(self) -> tuple[str, Sequence[SourceFile]]:
        """Return the full commit and its files. Raises SourceError.

        Without a network, a full commit that is in the cache is listed from there.
        """
        if self._tree is None:
            with self._explained():
                self._tree = self._read_tree()
        commit, entries = self._tree
        return commit, [
            SourceFile(entry.path, entry.size, entry.sha256, cached=self._is_cached(commit, entry)) for entry in entries
        ]

    def fetch(self, revision: str, files: Sequence[SourceFile], reporter: Reporter) -> dict[str, Path]:
        """Download what is missing of the commit `revision`; return each file's real path. Raises SourceError.

        A transfer that is cut goes on where it stopped; of a build that is killed, finished files stay.
        """
        missing = [file for file in files if self._pointer(revision, file.path) is None]
        if missing:
            total = sum(file.size for file in missing if not file.cached)
            with self._explained(), _quiet_library(), reporter.task(f"Fetching {self.uri}", total) as task:
                snapshot_download(
                    self._repo,
                    revision=revision,
                    allow_patterns=[glob.escape(file.path) for file in missing],
                    endpoint=_endpoint(),
                    cache_dir=self._home(),
                    token=get_token() or False,
                    tqdm_class=_bar_feeding(task),
                )
        return {file.path: self._fetched(revision, file) for file in files}

    def parameters(self, revision: str, file: SourceFile) -> int | None:
        """Return how many parameters a safetensors file holds, from its header; None where the Hub does not say."""
        if file.cached:
            return count_parameters(read_header(self._place(revision, file.path, file.sha256 or "")))
        try:
            header = _api().parse_safetensors_file_metadata(self._repo, file.path, revision=revision)
        except (*FOREIGN_ERRORS, SafetensorsParsingError):
            return None
        return sum(header.parameter_count.values())

    def _read_tree(self) -> _Tree:
        try:
            info = _api().model_info(self._repo, revision=self._requested, files_metadata=True, timeout=REQUEST_SECONDS)
        except (httpx2.TransportError, OfflineModeIsEnabled, HfHubHTTPError) as error:
            cached = self._cached_tree() if _is_outage(error) else None
            if cached is None:
                raise
            return cached
        return str(info.sha), [_entry(sibling) for sibling in info.siblings or ()]

    def _cached_tree(self) -> _Tree | None:
        """Return the listing that an earlier fetch of this full commit left in the cache."""
        if not _FULL_COMMIT.fullmatch(self._requested):
            return None
        try:
            tree = get_cached_repo_tree(self._repo, revision=self._requested, cache_dir=self._home())
        except CachedRepoTreeNotFoundError:
            return None
        return self._requested, [
            _Entry(file.path, file.size, self._blob_name(file.path) or file.blob_id) for file in tree
        ]

    def _blob_name(self, path: str) -> str | None:
        """Return what the snapshot's link names. One step only: the blob may itself be a link to a shared store."""
        pointer = self._pointer(self._requested, path)
        return pointer.readlink().name if pointer is not None and pointer.is_symlink() else None

    def _pointer(self, commit: str, path: str) -> Path | None:
        found = try_to_load_from_cache(self._repo, path, cache_dir=self._home(), revision=commit)
        return Path(found) if isinstance(found, str) else None

    def _is_cached(self, commit: str, entry: _Entry) -> bool:
        place = self._place(commit, entry.path, entry.etag)
        return place.is_file() and place.stat().st_size == entry.size

    def _place(self, commit: str, path: str, etag: str) -> Path:
        """Return where the bytes are, if they are here: in this commit's snapshot or, from another's, as a blob."""
        repository = self._home() / repo_folder_name(repo_id=self._repo, repo_type="model")
        return self._pointer(commit, path) or repository / "blobs" / etag

    def _fetched(self, commit: str, file: SourceFile) -> Path:
        pointer = self._pointer(commit, file.path)
        if pointer is None:
            raise SourceError(f"{file.path} of {self.uri} at {commit} did not arrive", fix="run again")
        real = pointer.resolve()
        if real.stat().st_size != file.size:
            raise SourceError(
                f"{file.path} of {self.uri} has {real.stat().st_size} bytes in the cache, and {file.size} at the Hub",
                fix=f"delete {real} and {pointer}, and run again",
            )
        return real

    def _home(self) -> Path:
        return self._cache or hub_cache()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FOREIGN_ERRORS as error:
            cause = telling(error)
            known = self._known_revisions() if isinstance(cause, RevisionNotFoundError) else ()
            asked = Asked(
                self._repo, self._requested, _endpoint(), self._home(), get_token() is not None, known_revisions=known
            )
            # Not chained: the original may quote a signed address.
            raise explain(cause, asked) from None

    def _known_revisions(self) -> tuple[str, ...]:
        with suppress(*FOREIGN_ERRORS):
            refs = _api().list_repo_refs(self._repo)
            return tuple(ref.name for ref in [*refs.branches, *refs.tags])[:REVISIONS_TO_NAME]
        return ()


def hub_cache() -> Path:
    """Return the folder of the Hugging Face cache, by the rules of huggingface_hub."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named is None:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        named = os.path.join(os.environ.get("HF_HOME") or os.path.join(base, "huggingface"), "hub")
    return Path(os.path.expandvars(named)).expanduser().absolute()


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def _api() -> HfApi:
    return HfApi(endpoint=_endpoint(), token=get_token() or False)


def _entry(sibling: RepoSibling) -> _Entry:
    etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    return _Entry(sibling.rfilename, sibling.size or 0, etag or "")


def _is_outage(error: Exception) -> bool:
    """Say whether the Hub could not be asked, rather than that it answered no."""
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Keep huggingface_hub from logging each retry: it quotes signed addresses, and would break into progress bars."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _bar_feeding(task: Task) -> type[tqdm]:
    """Return a progress bar class that draws nothing and tells `task` of the bytes written."""
    lock = Lock()

    class Bar(tqdm):
        def __init__(self, *args: Any, name: str | None = None, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            # A snapshot opens three bars: files, bytes on the wire, and this one, bytes on the disk.
            self._counts_bytes = name == "huggingface_hub.snapshot_download"

        def update(self, n: float | None = 1) -> None:
            if self._counts_bytes:
                with lock:
                    task.advance(int(n or 0))

    return Bar
