"""An endpoint and settings -> a client."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tokenizers import Tokenizer

from cogsmith.client.client import AsyncClient
from cogsmith.client.endpoint import CogServer, LmtpServer, LocalFolder, parse_endpoint
from cogsmith.client.images import data_uri
from cogsmith.client.sync import Client, run_in_thread
from cogsmith.client.transport import Timeouts, Transport
from cogsmith.errors import ClientError, EndpointError, MissingExtra


class Connection:
    """What `connect` returns: `async with` gives an AsyncClient, `with` a Client. Either closes all at its end.

    It is opened once. Raises ClientError at a second time.
    """

    def __init__(self, transport: Transport, **settings: Any) -> None:
        self._transport = transport
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self._client: AsyncClient | None = None

    async def __aenter__(self) -> AsyncClient:
        if self._client is not None:
            raise ClientError("this connection was opened before", fix="call connect for another")
        self._client = AsyncClient(self._transport, **self._settings)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.aclose()

    def __enter__(self) -> Client:
        return self._stack.enter_context(run_in_thread(self))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def connect(
    endpoint: str,
    *,
    token: str | None = None,
    base_url: str | None = None,
    tokenizer: str | Path | Tokenizer | None = None,
    model: str | None = None,
    timeouts: Timeouts | None = None,
    max_recoveries: int = 2,
    images: Sequence[str | Path] = (),
    **model_args: Any,
) -> Connection:
    """Return a connection to `endpoint`, for `async with` (an AsyncClient) or `with` (a Client).

    Endpoints: `replicate:ORG/MODEL[/VERSION]`, `replicate:deployment/ORG/NAME`, `http://HOST:PORT` (a bare Cog server),
    `ws://HOST:PORT` or `HOST:PORT` (any LMTP server), `local:FOLDER` (a work directory or a checkpoint folder, in this
    process). Nothing is sent before the first call.

    `token` is Replicate's, by default from REPLICATE_API_TOKEN; another server gets one only where it is given here.
    `base_url` is the Replicate API's, by default from REPLICATE_BASE_URL, then https://api.replicate.com; its /v1 may
    be left out. `tokenizer` is a `tokenizers.Tokenizer`, a tokenizer.json or the folder of one; None takes the
    server's own. `model` is the name that LMQL's own server wants to hear; others ignore it. `max_recoveries` is how
    often a call may go on in a new prediction after its own was cut. `images` are the files of the images that every
    prompt is about, for a model that reads some: they stand where a prompt has its placeholder, else before what the
    user says. `model_args` go to `from_pretrained` and are for `local:` only.
    Raises EndpointError, AuthenticationError, and RequestRejected for an image that cannot be read.
    """
    place = parse_endpoint(endpoint)
    if model_args and not isinstance(place, LocalFolder):
        raise EndpointError(
            f"{endpoint} takes no {', '.join(sorted(model_args))}", fix="model arguments are for local:FOLDER"
        )
    timeouts = timeouts or Timeouts()
    # Read at once: a file that is not there is no reason to start anything. What runs here reads them itself.
    sent = [data_uri(Path(image)) for image in images]
    transport: Transport
    if isinstance(place, LocalFolder):
        try:
            import torch  # noqa: F401  # both engines need it; the model itself is loaded by the first prediction

            from cogsmith.client.local import LocalTransport
        except ImportError as error:
            raise MissingExtra("engine", "Running a model in this process") from error
        transport = LocalTransport(place.folder, model_args, [Path(image).expanduser() for image in images])
    elif isinstance(place, LmtpServer):
        from cogsmith.client.websocket import WebSocketTransport

        if images:
            raise EndpointError(
                f"{endpoint} takes no images: LMTP itself has no place for them",
                fix="name the model's Cog server (http://HOST:PORT), replicate:ORG/MODEL, or local:FOLDER",
            )
        transport = WebSocketTransport(place.url, token, timeouts)
    elif isinstance(place, CogServer):
        from cogsmith.client.cog_http import CogTransport

        transport = CogTransport(place.url, token, timeouts, sent)
    else:
        from cogsmith.client.replicate import ReplicateTransport

        transport = ReplicateTransport(place, token, base_url, timeouts, sent)
    return Connection(
        transport,
        tokenizer=tokenizer,
        model=model,
        timeouts=timeouts,
        max_recoveries=max_recoveries,
        num_images=len(images),
    )
