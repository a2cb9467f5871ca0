"""The models that a gateway serves: what each is, and how a client's name for it is understood."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith import manifest
from cogsmith.errors import ServeError, UnknownResource
from cogsmith.workdir.places import checkpoint_folder
from cogsmith.workdir.schema import FILE_NAME as SCHEMA

if TYPE_CHECKING:
    from cogsmith.gateway.worker import Worker


@dataclass(frozen=True)
class ServedModel:
    """A work directory as the gateway's clients see it."""

    name: str
    folder: Path
    version: str
    """64 hex digits that change with the folder's files, and with nothing else."""
    created_at: datetime
    concurrency: int
    """Predictions that run at once: Cog's slots."""
    openapi_schema: dict[str, Any]
    description: str


class Models:
    """The served models, by the names that clients have for them."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = list(workers)

    def find(self, owner: str, name: str) -> Worker:
        """Return the model called `name`, in any case of its letters. Raises UnknownResource.

        On this machine every model is the caller's own, so any `owner` is right: a program written for the hosted
        service runs here unchanged.
        """
        for worker in self._workers:
            if worker.model.name == name.lower():
                return worker
        served = ", ".join(worker.model.name for worker in self._workers)
        raise UnknownResource(f"no model {owner}/{name} is served here", fix=f"use one of: {served}")

    def by_version(self, version: str) -> Worker:
        """Return the model with this version. Raises UnknownResource."""
        for worker in self._workers:
            if worker.model.version == version:
                return worker
        raise UnknownResource(f"no model of version {version} is served here")

    def all(self) -> list[Worker]:
        """Every model, in the order in which they were named."""
        return list(self._workers)

    def default(self) -> Worker:
        """The first: what a client gets that names none."""
        return self._workers[0]


def describe(folder: Path) -> ServedModel:
    """Read what the work directory `folder` serves. Raises UserError for one that cannot be read."""
    settings = manifest.read(folder)
    return ServedModel(
        name=settings.name,
        folder=folder,
        version=_version(folder),
        created_at=datetime.fromtimestamp((folder / manifest.FILE_NAME).stat().st_mtime, UTC),
        concurrency=settings.concurrency,
        openapi_schema=_schema(folder),
        description=f"{settings.source}, under Cog on this machine",
    )


def _schema(folder: Path) -> dict[str, Any]:
    try:
        schema: dict[str, Any] = json.loads((folder / SCHEMA).read_bytes())
    except (OSError, ValueError) as error:
        raise ServeError(f"{folder / SCHEMA} cannot be read: {error}", fix="build this folder again") from error
    return schema


def _version(folder: Path) -> str:
    """One hash over the files: of the rendered ones the content, of the weights names and sizes.

    That is enough: model.json, which is among the rendered ones, names the weights with their full revision.
    """
    weights = checkpoint_folder(folder)
    total = hashlib.sha256()
    for path in sorted(_files(folder)):
        is_weights = path.is_relative_to(weights)
        content = str(path.stat().st_size) if is_weights else hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{content} {path.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in `folder`, without what Python adds by itself when it runs."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(parent) / name for name in files)
