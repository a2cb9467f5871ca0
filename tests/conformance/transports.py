"""Servers that are reached through a socket, each read as strictly as LMQL 0.7.3 reads it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from .server import ANSWER_SECONDS, Server

_FENCE = 2**31 - 1


class WebSocket(Server):
    """LMTP at a WebSocket. A client of 1.0 sends each operation as a line; of 1.1, a batch."""

    def __init__(self, url: str, *, only_1_0: bool) -> None:
        self._url = url
        self.only_1_0 = only_1_0
        self.takes_batches = not only_1_0

    def lines(self, batch: str) -> Iterator[str]:
        from websockets.sync.client import connect

        with connect(self._url, max_size=None, max_queue=None, open_timeout=ANSWER_SECONDS) as socket:
            expected = _Expected(batch)
            for text in [batch] if self.takes_batches else _as_lines(batch):
                socket.send(text)
            while not expected.fulfilled:
                for verb, payload in _items(socket.recv(ANSWER_SECONDS)):
                    expected.note(verb, payload)
                    yield f"{verb} {json.dumps(payload)}"
            # Whatever wrongly follows an end comes before the answer to a later question.
            socket.send(f'MODEL_INFO {{"stream_id": {_FENCE}}}')
            while (items := _items(socket.recv(ANSWER_SECONDS)))[0][1]["stream_id"] != _FENCE:
                yield from (f"{verb} {json.dumps(payload)}" for verb, payload in items)


class _Expected:
    """How many ends a batch's streams are to have."""

    def __init__(self, batch: str) -> None:
        self._open: dict[int, int] = {}
        self._unnamed = 0
        try:
            operations = json.loads(batch)
        except (ValueError, RecursionError):
            operations = []
        for operation in operations if isinstance(operations, list) else []:
            self._add(operation)
        if not self._open:
            self._unnamed += 1

    def _add(self, operation: Any) -> None:
        verb, payload = operation if isinstance(operation, list) and len(operation) == 2 else (None, None)
        if verb == "DEFINE":
            return
        stream_id = payload.get("stream_id") if isinstance(payload, dict) else None
        if not isinstance(stream_id, int) or stream_id in self._open:
            self._unnamed += 1
            return
        branches = payload.get("n", len(payload.get("options", [0]))) if payload.get("lmtp") == "1.1" else 1
        self._open[stream_id] = branches if isinstance(branches, int) else 1

    def note(self, verb: str, payload: dict[str, Any]) -> None:
        stream_id = payload["stream_id"]
        if stream_id is None:
            self._unnamed -= 1
            if self._unnamed < 0:
                self._open.clear()  # the whole batch was refused
        elif verb in ("END", "MSG"):
            whole = verb == "MSG" or payload.get("index") is None
            self._close(stream_id, self._open[stream_id] if whole else 1)
        elif "index" not in payload and ("error" in payload or payload["finish_reason"] is not None):
            self._close(stream_id, 1)

    def _close(self, stream_id: int, count: int) -> None:
        self._open[stream_id] -= count

    @property
    def fulfilled(self) -> bool:
        return self._unnamed <= 0 and not any(self._open.values())


def _as_lines(batch: str) -> Iterator[str]:
    for verb, payload in json.loads(batch):
        yield f"{verb} {json.dumps(payload)}"


def _items(text: str | bytes) -> list[tuple[str, dict[str, Any]]]:
    """The items of a text message: a verb, and a list of them."""
    assert isinstance(text, str)
    verb, _, items = text.partition(" ")
    items = json.loads(items)
    assert isinstance(items, list)
    return [(verb, item) for item in items]


class CogServer(Server):
    """Cog's own HTTP server: a streamed prediction a batch."""

    def __init__(self, url: str) -> None:
        self._url = url

    def lines(self, batch: str) -> Iterator[str]:
        from cogsmith.client.cog_server import Prediction

        with contextlib.closing(Prediction(self._url, {"ops_batch_json": batch}).chunks()) as chunks:
            for chunk in chunks:
                yield from _whole_lines(chunk)


class Replicate(Server):
    """Replicate's HTTP API: `model` is "owner/name", `url` ends in /v1."""

    def __init__(self, url: str, model: str, token: str = "any") -> None:
        self._url = url
        self._model = model
        self._headers = {"Authorization": f"Token {token}"}

    def lines(self, batch: str) -> Iterator[str]:
        import httpx2

        with httpx2.Client(headers=self._headers, timeout=ANSWER_SECONDS, trust_env=False) as http:
            version = http.get(f"{self._url}/models/{self._model}").json()["latest_version"]["id"]
            request = {"version": version, "input": {"ops_batch_json": batch}, "stream": True}
            created = http.post(f"{self._url}/predictions", json=request)
            assert created.status_code == 201
            urls = created.json()["urls"]
            try:
                with http.stream("GET", urls["stream"], headers={"Accept": "text/event-stream"}) as response:
                    assert response.status_code == 200
                    assert response.headers["content-type"].startswith("text/event-stream")
                    for data in _output(response.iter_lines()):
                        yield from _whole_lines(data)
            finally:
                http.post(urls["cancel"])


def _output(lines: Iterator[str]) -> Iterator[str]:
    """The data of output events up to `done`, which alone ends a stream, and only with a line of data."""
    event, data = "message", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        if field == "event":
            event = value.strip()
        elif field == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            assert event in ("output", "done"), (event, data)
            if event == "done":
                return
            yield "\n".join(data)
            event, data = "message", []
    raise AssertionError("the stream ended without `done`")


def _whole_lines(chunk: str) -> list[str]:
    """A line that is cut across two chunks makes LMQL raise."""
    lines = [line for line in chunk.split("\n") if line]
    for line in lines:
        json.loads(line.partition(" ")[2])
    return lines
