"""Predictions on Replicate, or on a gateway that speaks as it does."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx2

from cogsmith.client import http_calls
from cogsmith.client.endpoint import ReplicateDeployment, ReplicateModel
from cogsmith.client.images import inputs_of
from cogsmith.client.once import Once
from cogsmith.client.replicate_stream import ReplicatePrediction
from cogsmith.client.retrying import retried
from cogsmith.client.transport import Timeouts
from cogsmith.errors import AuthenticationError, ClientError, EndpointError, ServiceUnavailable
from cogsmith.lmtp import AnyOperation

DEFAULT_URL = "https://api.replicate.com/v1"

_ABANDONED_SECONDS = 4.0


class ReplicateTransport:
    """Runs batches as predictions of a model or a deployment, each with `images`, as data URIs. Implements `Transport`.

    Raises AuthenticationError where there is no token, EndpointError for a base URL that is none.
    """

    ends_by_itself = True

    def __init__(
        self,
        target: ReplicateModel | ReplicateDeployment,
        token: str | None,
        base_url: str | None,
        timeouts: Timeouts,
        images: Sequence[str] = (),
    ) -> None:
        self._url = _api_url(base_url)
        auth = http_calls.TokenAuth(_token(token), self._url)
        is_local = httpx2.URL(self._url).host in ("localhost", "127.0.0.1", "::1")
        self._client = http_calls.http_client(timeouts, auth=auth, is_local=is_local)
        self._target = target
        self._images = images
        self._place = Once(self._find_place)

    async def run(self, operations: Sequence[AnyOperation]) -> AsyncGenerator[str]:
        """Run the operations as one prediction: see `Transport`."""
        prediction = await self._create(inputs_of(operations, self._images))
        try:
            async for text in prediction.text():
                yield text
        finally:
            if not prediction.ended:
                await prediction.cancel()

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._place.aclose()
        await self._client.aclose()

    async def _create(self, inputs: Mapping[str, Any]) -> ReplicatePrediction:
        """Create a prediction, trying again only where there surely is none yet."""
        url, version = await self._place.get()
        request = self._client.build_request("POST", url, json={**version, "input": dict(inputs), "stream": True})
        return await retried(lambda: self._post(request), http_calls.can_repeat_nothing)

    async def _post(self, request: httpx2.Request) -> ReplicatePrediction:
        """Send what creates a prediction. Where nobody waits for the answer any more, the prediction is cancelled."""
        answer = asyncio.create_task(self._answer(request))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            # What the request starts would run, and cost, for nobody.
            with contextlib.suppress(ClientError, TimeoutError):
                await (await asyncio.wait_for(answer, _ABANDONED_SECONDS)).cancel()
            raise

    async def _answer(self, request: httpx2.Request) -> ReplicatePrediction:
        response = await http_calls.send_once(self._client, request)
        created = await http_calls.read_json(response)
        match created:
            case {"status": str(), "urls": {"get": str(), "cancel": str()}}:
                return ReplicatePrediction(self._client, created)
        raise ServiceUnavailable(f"{request.url} gave no prediction", fix=http_calls.MAYBE, may_have_run=True)

    async def _find_place(self) -> tuple[str, dict[str, str]]:
        """Return the URL that creates predictions of the target, and the fields that say of which version.

        A model's latest version is looked up once, so that all predictions of a client are of the same.
        """
        target = self._target
        if isinstance(target, ReplicateDeployment):
            return f"{self._url}/deployments/{target.owner}/{target.name}/predictions", {}
        if target.version is not None:
            return f"{self._url}/predictions", {"version": target.version}
        model = f"{self._url}/models/{target.owner}/{target.name}"
        facts = await http_calls.get_json(self._client, model)
        match facts.get("latest_version"):
            case {"id": str(version)}:
                return f"{self._url}/predictions", {"version": version}
        return f"{model}/predictions", {}


def _token(given: str | None) -> str:
    token = (given or os.environ.get("REPLICATE_API_TOKEN", "")).strip()
    if not token:
        raise AuthenticationError(
            "there is no token for Replicate", fix="set REPLICATE_API_TOKEN, or give connect a `token`"
        )
    return token


def _api_url(given: str | None) -> str:
    """Return the API's URL, which ends in /v1: the given one's may be left out."""
    text = given or os.environ.get("REPLICATE_BASE_URL") or DEFAULT_URL
    if not text.startswith(("http://", "https://")):
        raise EndpointError(f"the base URL {text!r} is no http(s) URL", fix=f"give one such as {DEFAULT_URL}")
    return text.rstrip("/").removesuffix("/v1") + "/v1"
