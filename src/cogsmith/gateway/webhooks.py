"""Webhooks: a POST of the prediction to whoever asked for it, signed as https://www.standardwebhooks.com says.

Output and logs are told of at most every half second. A message about the end is sent again, ever later, until it is
taken; any other is followed by newer ones anyway.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import httpx2
import msgspec
import tenacity
from standardwebhooks import Webhook as Signer
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from cogsmith.gateway import present
from cogsmith.gateway.prediction import Change, Prediction, Webhook
from cogsmith.gateway.present import Json
from cogsmith.gateway.routes.resource import resource

_log = logging.getLogger("cogsmith.gateway")

_PAUSE_SECONDS = 0.5
_TIMEOUT_SECONDS = 10.0
_ATTEMPTS = 6
_LEAVE_SECONDS = 5.0


class Webhooks:
    """Sends what predictions' webhooks ask for. An asynchronous context: at its end the last ones get some seconds."""

    def __init__(self) -> None:
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        """With this the receivers check the signatures."""
        self._news: dict[Prediction, _News] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = httpx2.AsyncClient(timeout=_TIMEOUT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LEAVE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def routes(self) -> list[BaseRoute]:
        """Where receivers get the secret."""
        return [resource("/webhooks/default/secret", GET=self._tell_secret)]

    def notice(self, prediction: Prediction, change: Change) -> None:
        """Take note of a change; for `Predictions.subscribe`."""
        if prediction.webhook is None:
            return
        if prediction not in self._news:
            self._news[prediction] = _News()
            task = asyncio.create_task(self._tell(prediction, prediction.webhook, self._news[prediction]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._news[prediction].add(change)

    async def _tell_secret(self, request: Request) -> Response:
        return Json({"key": self.secret})

    async def _tell(self, prediction: Prediction, webhook: Webhook, news: _News) -> None:
        """Send until the prediction has ended, and its end."""
        try:
            ended = False
            while not ended:
                changes = await news.take()
                ended = "completed" in changes
                if "start" in changes & webhook.changes:
                    await self._send(prediction, webhook, attempts=1)
                if not ended and changes & webhook.changes & {"output", "logs"}:
                    await self._send(prediction, webhook, attempts=1)
                    await news.pause()
            if "completed" in webhook.changes:
                await self._send(prediction, webhook, attempts=_ATTEMPTS)
        finally:
            del self._news[prediction]

    async def _send(self, prediction: Prediction, webhook: Webhook, *, attempts: int) -> None:
        body = msgspec.json.encode(present.prediction(prediction, webhook.base_url)).decode()
        message_id = f"msg_{secrets.token_urlsafe(16)}"
        try:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(httpx2.HTTPError),
                stop=tenacity.stop_after_attempt(attempts),
                wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=30.0),
                reraise=True,
            ):
                with attempt:
                    headers = sign(self.secret, message_id, body)
                    response = await self._client.post(webhook.url, content=body, headers=headers)
                    response.raise_for_status()
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            _log.warning("webhook of prediction %s: %s", prediction.id, error or type(error).__name__)


def sign(secret: str, message_id: str, body: str) -> dict[str, str]:
    """Return the headers of a message that is sent now."""
    now = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Signer(secret).sign(message_id, now, body),
    }


class _News:
    """The changes of one prediction that its webhook has not been told of."""

    def __init__(self) -> None:
        self._changes: set[Change] = set()
        self._any = asyncio.Event()
        self._ended = asyncio.Event()

    def add(self, change: Change) -> None:
        """Note a change."""
        self._changes.add(change)
        self._any.set()
        if change == "completed":
            self._ended.set()

    async def take(self) -> set[Change]:
        """Wait for changes, and forget them."""
        await self._any.wait()
        changes, self._changes = self._changes, set()
        self._any.clear()
        return changes

    async def pause(self) -> None:
        """Wait as long as must lie between two messages about output, or until the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), _PAUSE_SECONDS)
