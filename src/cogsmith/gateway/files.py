"""Files that clients upload before they name them in an input: `/files`, as Replicate has it.

They lie in a temporary folder for as long as the gateway runs.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute

from cogsmith.errors import UnknownResource
from cogsmith.gateway import pages, present
from cogsmith.gateway.present import Json
from cogsmith.gateway.problems import HTTPProblem, InvalidField, invalid
from cogsmith.gateway.routes.bodies import parse_object
from cogsmith.gateway.routes.resource import resource

_UNTYPED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file. `size` is in bytes."""

    id: str
    path: Path
    name: str
    content_type: str
    size: int
    sha256: str
    md5: str
    metadata: dict[str, Any]
    created_at: datetime


class FileStore:
    """The uploaded files, `max_bytes` of them at most. `close` removes them all."""

    def __init__(self, max_bytes: int = 2**30) -> None:
        self._max_bytes = max_bytes
        self._folder: Path | None = None
        self._files: dict[str, StoredFile] = {}
        self._ids: set[str] = set()

    def add(self, upload: UploadFile, metadata: dict[str, Any]) -> StoredFile:
        """Keep a copy. Raises HTTPProblem where there is no room for it, OSError where the disk has none."""
        size = upload.size or 0
        if sum(file.size for file in self._files.values()) + size > self._max_bytes:
            raise HTTPProblem(
                413, "Content too large", f"There is no room for {size} bytes more: delete files that are not needed"
            )
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="cogsmith-files-"))
        identity = secrets.token_hex(20)
        path = self._folder / identity
        upload.file.seek(0)
        try:
            with path.open("wb") as copy:
                shutil.copyfileobj(upload.file, copy)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        stored = StoredFile(
            id=identity,
            path=path,
            name=upload.filename or "file",
            content_type=upload.content_type or _UNTYPED,
            size=size,
            sha256=_digest(path, "sha256"),
            md5=_digest(path, "md5"),
            metadata=metadata,
            created_at=datetime.now(UTC),
        )
        self._files[identity] = stored
        self._ids.add(identity)
        return stored

    def get(self, file_id: str) -> StoredFile:
        """The file of this id. Raises UnknownResource."""
        if file_id not in self._files:
            raise UnknownResource(f"there is no file {file_id!r} here: files are kept while the gateway runs")
        return self._files[file_id]

    def had(self, file_id: str) -> bool:
        """Whether there ever was a file of this id here."""
        return file_id in self._ids

    def newest_first(self) -> list[StoredFile]:
        """All files."""
        return list(reversed(self._files.values()))

    def remove(self, file_id: str) -> None:
        """Delete the file of this id. Raises UnknownResource."""
        self.get(file_id).path.unlink(missing_ok=True)
        del self._files[file_id]

    def close(self) -> None:
        """Delete everything."""
        self._files.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class FileRoutes:
    """Answers for the files of a `store`."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    def routes(self) -> list[BaseRoute]:
        """Upload, list, look at, download, delete."""
        return [
            resource("/files", GET=self._list, POST=self._create),
            resource("/files/{file_id}", GET=self._get, DELETE=self._delete),
            resource("/files/{file_id}/download", GET=self._download),
        ]

    async def _create(self, request: Request) -> Response:
        try:
            stored = await self._take(request)
        except ClientDisconnect as error:
            raise HTTPProblem(400, "Bad request", "The body ended early") from error
        except OSError as error:
            raise HTTPProblem(507, "Insufficient storage", f"The file cannot be kept: {error.strerror}") from error
        return Json(_present(stored, request), 201)

    async def _take(self, request: Request) -> StoredFile:
        async with request.form(max_files=2, max_fields=10) as form:
            content = form.get("content")
            if not isinstance(content, UploadFile):
                field = InvalidField("required", "content", "content is required: send the file as multipart/form-data")
                raise invalid([field])
            metadata = await _metadata(form)
            return await to_thread.run_sync(self._store.add, content, metadata)

    async def _list(self, request: Request) -> Response:
        return Json(pages.whole([_present(file, request) for file in self._store.newest_first()]))

    async def _get(self, request: Request) -> Response:
        return Json(_present(self._store.get(request.path_params["file_id"]), request))

    async def _download(self, request: Request) -> Response:
        file = self._store.get(request.path_params["file_id"])
        return FileResponse(file.path, media_type=file.content_type, filename=file.name)

    async def _delete(self, request: Request) -> Response:
        self._store.remove(request.path_params["file_id"])
        return Response(status_code=204)


async def _metadata(form: FormData) -> dict[str, Any]:
    """The form's `metadata`: JSON in a field, or, as the JavaScript client sends it, in a part of its own."""
    given = form.get("metadata", "{}")
    text = await given.read() if isinstance(given, UploadFile) else given
    try:
        return parse_object(text)
    except ValueError as error:
        raise invalid([InvalidField("type", "metadata", f"metadata {error}")]) from error


def _present(file: StoredFile, request: Request) -> dict[str, Any]:
    url = f"{present.base_url(request)}/v1/files/{file.id}"
    return {
        "id": file.id,
        "name": file.name,
        "content_type": file.content_type,
        "size": file.size,
        "etag": file.md5,
        "checksums": {"sha256": file.sha256, "md5": file.md5},
        "metadata": file.metadata,
        "created_at": present.timestamp(file.created_at),
        "expires_at": None,
        "urls": {"get": url, "download": f"{url}/download"},
    }


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
