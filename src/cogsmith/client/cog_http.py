"""Predictions on a bare Cog server, streamed.

Cog's own events (not Replicate's): `output` with a chunk, `completed` with the status, `error` where the stream
breaks; a comment every 15 seconds. Who leaves, cancels.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx2

from cogsmith.client import http_calls
from cogsmith.client.images import inputs_of
from cogsmith.client.retrying import FOR_A_SLOT, retried
from cogsmith.client.transport import Timeouts
from cogsmith.errors import PredictionCanceled, PredictionFailed, ServiceUnavailable, StreamBroken
from cogsmith.lmtp import AnyOperation

_HOPELESS = ("SETUP_FAILED", "DEFUNCT", "UNHEALTHY")
_LOOK_EVERY = 10


class CogTransport:
    """Runs batches on the Cog server at `url`, each with `images`, as data URIs. Implements `Transport`."""

    ends_by_itself = True

    def __init__(self, url: str, token: str | None, timeouts: Timeouts, images: Sequence[str] = ()) -> None:
        auth = None if token is None else http_calls.TokenAuth(token, url)
        self._client = http_calls.http_client(timeouts, auth=auth)
        self._url = url
        self._images = images

    def run(self, operations: Sequence[AnyOperation]) -> AsyncGenerator[str]:
        """Run the operations as one prediction: see `Transport`."""
        return CogPrediction(self._client, self._url, inputs_of(operations, self._images)).chunks()

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._client.aclose()


class CogPrediction:
    """A streamed prediction. After the chunks have been read, `metrics` holds what the server counted."""

    def __init__(self, client: httpx2.AsyncClient, url: str, inputs: Mapping[str, Any]) -> None:
        self._client = client
        self._server = url
        self._url = f"{url}/predictions"
        self._inputs = dict(inputs)
        self.metrics: dict[str, Any] = {}

    async def chunks(self) -> AsyncGenerator[str]:
        """Yield the output as it comes; closing this cancels the prediction. Raises as `Transport.run` does."""
        response = await self._begun()
        async with contextlib.aclosing(response):
            try:
                async for event in httpx2.EventSource(response, max_event_size=None):
                    match event.event, _facts(event.data):
                        case "output", {"chunk": str(chunk)}:
                            yield chunk
                        case "output", data:
                            raise PredictionFailed(f"{self._url} gave an output that is no text: {data}")
                        case "completed", data:
                            self._complete(data)
                            return
                        case "error", data:
                            raise StreamBroken(f"the stream broke: {data.get('error')}")
            except httpx2.TransportError as error:
                raise StreamBroken(f"the connection to {self._url} broke: {error or type(error).__name__}") from error
        raise StreamBroken("the server closed the connection before the prediction ended")

    async def _begun(self) -> httpx2.Response:
        """Send the request until there is a slot for it."""
        attempts = itertools.count(1)

        async def begin() -> httpx2.Response:
            if next(attempts) % _LOOK_EVERY == 0:
                await self._check_health()
            return await http_calls.send(self._client, self._request, again=http_calls.is_unreachable)

        return await retried(begin, http_calls.is_busy, FOR_A_SLOT)

    async def _check_health(self) -> None:
        """Raises ServiceUnavailable where waiting for a slot is in vain: a Cog server never starts its model again."""
        health = await http_calls.get_json(self._client, f"{self._server}/health-check")
        if health.get("status") in _HOPELESS:
            raise ServiceUnavailable(f"the model at {self._server} is {health['status']}", fix="start the server again")

    def _request(self) -> httpx2.Request:
        return self._client.build_request(
            "POST", self._url, json={"input": self._inputs}, headers={"Accept": "text/event-stream"}
        )

    def _complete(self, prediction: Mapping[str, Any]) -> None:
        self.metrics = prediction.get("metrics") or {}
        match prediction.get("status"):
            case "succeeded":
                return
            case "canceled":
                raise PredictionCanceled("the prediction was canceled")
            case status:
                raise PredictionFailed(f"the prediction {status}: {prediction.get('error')}")


def _facts(text: str) -> dict[str, Any]:
    """Read an event's data. Raises PredictionFailed for what is no JSON object."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise PredictionFailed(f"the server sent an event that is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise PredictionFailed(f"the server sent an event that is no JSON object: {text[:100]}")
    return data
