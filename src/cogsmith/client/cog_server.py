"""A prediction on a bare Cog server, for programs without an event loop: any inputs, chunks as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anyio.from_thread import start_blocking_portal

from cogsmith.client.cog_http import CogPrediction
from cogsmith.client.http_calls import http_client
from cogsmith.client.sync import iterate
from cogsmith.client.transport import Timeouts


class Prediction:
    """A streamed prediction on the server at `url`. After the chunks were read, `metrics` holds what it counted."""

    def __init__(self, url: str, inputs: Mapping[str, Any]) -> None:
        self.metrics: dict[str, Any] = {}
        self._url = url
        self._inputs = inputs

    def chunks(self) -> Iterator[str]:
        """Yield the output as it comes. Raises a ClientError where the prediction fails or cannot be had.

        Leaving the iteration early closes the connection, which cancels the prediction.
        """
        with start_blocking_portal("asyncio") as portal:
            client = portal.call(http_client, Timeouts())
            prediction = CogPrediction(client, self._url, self._inputs)
            chunks = prediction.chunks()
            try:
                yield from iterate(portal, chunks)
                self.metrics = prediction.metrics
            finally:
                portal.call(chunks.aclose)
                portal.call(client.aclose)
