"""Which model a request's `version` means."""

from __future__ import annotations

from cogsmith.errors import UnknownResource
from cogsmith.gateway import present
from cogsmith.gateway.models import Models
from cogsmith.gateway.problems import HTTPProblem
from cogsmith.gateway.worker import Worker


def resolve(models: Models, reference: str) -> tuple[Worker, str]:
    """The model that `VERSION`, `OWNER/NAME:VERSION` or `OWNER/NAME` means, and the name "OWNER/NAME" for it.

    Raises HTTPProblem where there is none.
    """
    try:
        return _find(models, reference)
    except UnknownResource as error:
        raise HTTPProblem(
            422,
            "Invalid version or not permitted",
            "The specified version does not exist (or perhaps you don't have permission to use it?)",
            reason=str(error),
        ) from error


def _find(models: Models, reference: str) -> tuple[Worker, str]:
    owner, slash, rest = reference.partition("/")
    if not slash:
        worker = models.by_version(reference)
        return worker, f"{present.LOCAL_OWNER}/{worker.model.name}"
    name, colon, version = rest.partition(":")
    worker = models.find(owner, name)
    if colon and version != worker.model.version:
        raise UnknownResource(f"{owner}/{name} has no version {version!r} here: it is {worker.model.version}")
    return worker, f"{owner}/{name}"
