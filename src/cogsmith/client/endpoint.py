"""What an ENDPOINT means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cogsmith.errors import EndpointError

FORMS = (
    "replicate:ORG/MODEL[/VERSION], replicate:deployment/ORG/NAME, http://HOST:PORT (a Cog server), "
    "ws://HOST:PORT or HOST:PORT (an LMTP server), local:FOLDER"
)

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_MODEL = re.compile(rf"(?P<owner>{_NAME})/(?P<name>{_NAME})(?:[/:](?P<version>{_NAME}))?")
_DEPLOYMENT = re.compile(rf"deployment/(?P<owner>{_NAME})/(?P<name>{_NAME})")
_URL = re.compile(r"(?P<scheme>https?|wss?)://[^\s/?#]+(?:/\S*)?")
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+")


@dataclass(frozen=True, slots=True)
class ReplicateModel:
    """A model on Replicate; `version` None means the latest."""

    owner: str
    name: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicateDeployment:
    """A deployment on Replicate."""

    owner: str
    name: str


@dataclass(frozen=True, slots=True)
class CogServer:
    """A Cog server, spoken to directly."""

    url: str


@dataclass(frozen=True, slots=True)
class LmtpServer:
    """A server that speaks LMTP over a WebSocket."""

    url: str


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A work directory or a checkpoint folder, run in this process."""

    folder: Path


Endpoint = ReplicateModel | ReplicateDeployment | CogServer | LmtpServer | LocalFolder


def parse_endpoint(text: str) -> Endpoint:
    """Read an endpoint. Raises EndpointError, with all forms, for what is none."""
    scheme, _, rest = text.partition(":")
    if scheme == "replicate":
        return _replicate(text, rest)
    if scheme == "local":
        return _local(text, rest)
    if matched := _URL.fullmatch(text):
        url = text.rstrip("/")
        _check_place(url)
        return CogServer(url) if matched["scheme"].startswith("http") else LmtpServer(url)
    if _HOST_AND_PORT.fullmatch(text):
        _check_place(f"ws://{text}")
        return LmtpServer(f"ws://{text}")
    raise EndpointError(f"{text!r} is no endpoint", fix=f"give one of {FORMS}")


def _check_place(url: str) -> None:
    """Raises EndpointError for a URL that leads nowhere, or holds a secret, which errors and logs would show."""
    try:
        place = urlsplit(url)
        is_place = bool(place.hostname) and place.port != 0
    except ValueError:
        is_place = False
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise EndpointError("an endpoint holds no user and no password", fix="give the server's token as `token`")
    if not is_place:
        raise EndpointError(f"{url!r} names no host and port", fix=f"give one of {FORMS}")


def _replicate(text: str, reference: str) -> ReplicateModel | ReplicateDeployment:
    if matched := _DEPLOYMENT.fullmatch(reference):
        return ReplicateDeployment(**matched.groupdict())
    if matched := _MODEL.fullmatch(reference):
        return ReplicateModel(**matched.groupdict())
    raise EndpointError(
        f"{text!r} names no model on Replicate",
        fix="give replicate:ORG/MODEL, replicate:ORG/MODEL/VERSION or replicate:deployment/ORG/NAME",
    )


def _local(text: str, folder: str) -> LocalFolder:
    path = Path(folder).expanduser()
    if not folder or not path.is_dir():
        raise EndpointError(f"{text!r}: there is no folder {folder!r}", fix="give the path of a work directory")
    return LocalFolder(path.absolute())
