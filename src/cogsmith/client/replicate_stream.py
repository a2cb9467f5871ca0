"""One prediction's text, whatever happens to the connection that carries it.

The text is read from the prediction's stream of events. Where that is cut, the prediction itself is asked: it holds all
output up to then; if it goes on, its stream is opened again after the last event read (`Last-Event-ID`). Every piece
has its place in the prediction's text, counted in characters, so what comes twice is told from what is new, also from a
server that starts over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx2

from cogsmith.client import http_calls
from cogsmith.errors import (
    ClientError,
    PredictionCanceled,
    PredictionFailed,
    StreamBroken,
)

_ENDED = ("succeeded", "failed", "canceled", "aborted")
# Between two looks at a prediction whose stream was cut; the stream is what carries text, normally at once.
_LOOK_AGAIN_SECONDS = 0.5
_CANCEL_SECONDS = 3.0


class ReplicatePrediction:
    """A prediction as its creation was answered. `ended`: the server said that it has."""

    def __init__(self, client: httpx2.AsyncClient, created: Mapping[str, Any]) -> None:
        self._client = client
        self._urls: Mapping[str, str] = created["urls"]
        self._at = _Position()
        self.ended = created["status"] in _ENDED
        self._went_well = False

    async def text(self) -> AsyncGenerator[str]:
        """Yield the output's text. Raises PredictionFailed, PredictionCanceled, StreamBroken."""
        while True:
            async with contextlib.aclosing(self._streamed()) as streamed:
                async for text in streamed:
                    yield text
            if self._went_well:
                return
            state = await self._look()
            self.ended = state.get("status") in _ENDED
            if text := self._at.rest_of(_joined(state.get("output"))):
                yield text
            if self.ended:
                _conclude(state)
                return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def cancel(self) -> None:
        """Ask the server to end it. Gives up after some seconds: a prediction ends by itself too."""
        with contextlib.suppress(ClientError, TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                response = await http_calls.send(
                    self._client,
                    lambda: self._client.build_request("POST", self._urls["cancel"]),
                    again=http_calls.can_repeat_all,
                )
                await response.aclose()

    async def _streamed(self) -> AsyncGenerator[str]:
        """Yield new text from the stream, until it ends or is cut. Notes where it says that all went well."""
        if "stream" not in self._urls:
            return
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **self._at.resume()}
        try:
            response = await http_calls.send(
                self._client,
                lambda: self._client.build_request("GET", self._urls["stream"], headers=headers),
                again=http_calls.can_repeat_all,
            )
            async with contextlib.aclosing(response):
                async for event in httpx2.EventSource(response, max_event_size=None):
                    if event.event == "output" and (text := self._at.new_part(event)):
                        yield text
                    elif event.event in ("done", "error"):
                        # Where it did not go well, the prediction itself knows more about that.
                        self._went_well = event.event == "done" and "reason" not in json.loads(event.data or "{}")
                        self.ended = self.ended or self._went_well
                        return
        except (httpx2.TransportError, ClientError, ValueError):
            return

    async def _look(self) -> Mapping[str, Any]:
        try:
            return await http_calls.get_json(self._client, self._urls["get"])
        except ClientError as error:
            raise StreamBroken(f"the stream was cut, and the prediction is out of reach: {error.message}") from error


class _Position:
    """How much of a prediction's text has been given out, and where its events stand in it."""

    def __init__(self) -> None:
        self._given = 0
        self._last_id = ""
        self._starts: dict[str, int] = {}
        self._ends: dict[str, int] = {"": 0}
        self._next: int | None = None

    def resume(self) -> dict[str, str]:
        """Begin to read a stream, again or at all; return the headers that say from where."""
        self._next = None
        return {"Last-Event-ID": self._last_id} if self._last_id else {}

    def new_part(self, event: httpx2.ServerSentEvent) -> str:
        """Return what is new in an event."""
        if self._next is None:
            # A server that starts over begins with an event we know; one that goes on, after the last.
            self._next = self._starts.get(event.id, self._ends[self._last_id])
        start, self._next = self._next, self._next + len(event.data)
        self._last_id = event.id
        self._starts.setdefault(event.id, start)
        self._ends[event.id] = self._next
        return self._unseen(event.data, start)

    def rest_of(self, text: str) -> str:
        """Return what is new in the whole text up to now."""
        return self._unseen(text, 0)

    def _unseen(self, text: str, start: int) -> str:
        new = text[max(0, self._given - start) :]
        self._given = max(self._given, start + len(text))
        return new


def _joined(output: Any) -> str:
    """Return the text of an output so far: its chunks, or nothing yet."""
    chunks = output if isinstance(output, list) else [output]
    return "".join(chunk for chunk in chunks if isinstance(chunk, str))


def _conclude(state: Mapping[str, Any]) -> None:
    """Raises what the status of an ended prediction stands for."""
    match state["status"]:
        case "failed":
            raise PredictionFailed(f"the prediction failed: {state.get('error') or 'no reason given'}")
        case "canceled" | "aborted":
            raise PredictionCanceled(
                f"the prediction was {state['status']}", fix="somebody else ended it, or a time limit of the host"
            )
