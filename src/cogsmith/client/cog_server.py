"""A prediction on a bare Cog server, streamed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from cogsmith.errors import ServeError

_BUSY_SECONDS = 60.0
# Set-up is over when this is called, but a first token may wait behind long prompts; keep-alives come every 15 s.
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)


@dataclass(slots=True)
class Prediction:
    """A streamed prediction. After the chunks have been read, `metrics` holds what the server counted."""

    url: str
    inputs: Mapping[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)

    def chunks(self) -> Iterator[str]:
        """Yield the output as it comes. Raises ServeError where the prediction fails or cannot be had.

        Leaving the iteration early closes the connection, which cancels the prediction.
        """
        try:
            yield from self._chunks()
        except httpx2.TransportError as error:
            raise ServeError(f"the connection to {self.url} failed: {error or type(error).__name__}") from error

    def _chunks(self) -> Iterator[str]:
        deadline = time.monotonic() + _BUSY_SECONDS
        with httpx2.Client(timeout=_TIMEOUT, trust_env=False) as client:
            while True:
                with client.sse(
                    f"{self.url}/predictions", method="POST", json={"input": dict(self.inputs)}, max_event_size=None
                ) as source:
                    if source.response.status_code != 409 or time.monotonic() > deadline:
                        yield from self._read(source)
                        return
                # Cog frees a slot only some time after its last answer, so "at capacity" is often not so.
                time.sleep(0.02)

    def _read(self, source: httpx2.EventSource) -> Iterator[str]:
        if source.response.status_code != 200:
            raise ServeError(f"the Cog server answered {source.response.status_code}: {_reason(source.response)}")
        for event in source:
            data = json.loads(event.data)
            if event.event == "output":
                yield data["chunk"]
            elif event.event == "completed":
                self.metrics = data.get("metrics", {})
                if data["status"] != "succeeded":
                    raise ServeError(f"the prediction {data['status']}: {data.get('error')}")
                return
            elif event.event == "error":
                raise ServeError(f"the stream broke: {data.get('error')}")
        raise ServeError("the server closed the connection before the prediction ended")


def _reason(response: httpx2.Response) -> str:
    """The error's text: Cog says it as `error`, or as `detail` where an input is wrong."""
    body = response.read()
    try:
        answer = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    details = answer.get("detail")
    if isinstance(details, list):
        return "; ".join(f"{'.'.join(map(str, item['loc'][2:]))}: {item['msg']}" for item in details)
    return str(answer.get("error", answer))
