"""A small server that stands for Replicate, after what the hosted one answers, with faults that a test asks for.

No part of it is shared with the program.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .arithmetic import FEATURES, FINGERPRINT, TOKENIZER, answer, digest

EXTENDED = {"lmtp": "1.1", "features": [*FEATURES, "tokenizer"], "vocab_size": 97, "tokenizer": FINGERPRINT}
PLAIN = {"lmtp": "1.0", "features": [], "vocab_size": 97}

QUESTIONS = ("MODEL_INFO", "TOKENIZER")


@dataclass
class Faults:
    """What goes wrong, for predictions that do more than to answer questions."""

    create: list = field(default_factory=list)
    """Answers to the next creations: a status with headers, "cut" or "slow"."""
    cuts: list = field(default_factory=list)
    """After how many events each next stream is cut."""
    replays: bool = False
    """Last-Event-ID is ignored: a stream starts over."""
    no_ids: bool = False
    gone_after_cut: bool = False
    """A stream that was cut cannot be opened again."""
    fails_after: list = field(default_factory=list)
    """After how many chunks each next prediction fails."""
    canceled_after: int | None = None
    holds_after: int | None = None
    """After how many chunks a prediction gives no more, until it or one of its streams is cancelled."""
    chunk_size: int | None = None
    """Characters of an output chunk; None gives a line each."""
    hides_output: bool = False
    """The prediction itself tells no output while it runs."""


class _Cut(Exception):
    """Breaks a connection."""


class Service:
    """The server. `requests` are "METHOD path", `batches` the operations of each created prediction."""

    def __init__(self):
        self.forget()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self._app(), log_level="critical", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()

    def forget(self):
        """Begin anew: a server of LMTP 1.1 without faults, that has seen nothing."""
        self.info = EXTENDED
        self.tokenizer = TOKENIZER
        self.faults = Faults()
        self.fails = []
        self.limited = 0
        self.cut_answers = 0
        self.latest_version = {"id": "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"}
        self.requests = []
        self.headers = []
        self.bodies = []
        self.batches = []
        self.cancelled = []
        self.predictions = {}

    def close(self):
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    @property
    def work(self):
        """The batches that are more than questions."""
        return [batch for batch in self.batches if any(verb not in QUESTIONS for verb, _ in batch)]

    def _app(self):
        creations = ["/v1/predictions", "/v1/models/o/m/predictions", "/v1/deployments/o/d/predictions"]
        return Starlette(
            routes=[
                Route("/v1/models/o/m", self._model),
                *(Route(path, self._create, methods=["POST"]) for path in creations),
                Route("/v1/predictions/{id}", self._get),
                Route("/v1/predictions/{id}/cancel", self._cancel, methods=["POST"]),
                Route("/stream/{id}", self._stream),
            ]
        )

    def _note(self, request):
        self.requests.append(f"{request.method} {request.url.path}")
        self.headers.append(dict(request.headers))

    async def _model(self, request):
        self._note(request)
        if self.limited:
            self.limited -= 1
            return JSONResponse({"detail": "slower"}, 429, {"Retry-After": "0"})
        if self.cut_answers:
            self.cut_answers -= 1
            return StreamingResponse(_cut())
        if self.fails:
            return JSONResponse({"detail": "no"}, self.fails.pop())
        return JSONResponse({"owner": "o", "name": "m", "latest_version": self.latest_version})

    async def _create(self, request):
        self._note(request)
        body = await request.json()
        batch = json.loads(body["input"]["ops_batch_json"])
        is_work = any(verb not in QUESTIONS for verb, _ in batch)
        if is_work and self.faults.create:
            fault = self.faults.create.pop(0)
            if fault == "cut":
                return StreamingResponse(_cut())
            if fault != "slow":
                status, headers = fault
                return JSONResponse({"title": "No", "detail": f"fault {status}"}, status, headers)
            await asyncio.sleep(1.0)
        if any(verb == "CANCEL" for verb, _ in batch):
            for prediction in self.predictions.values():
                prediction.held.set()
        self.bodies.append(body)
        self.batches.append(batch)
        facts = {**self.info, "tokenizer_files": digest(self.tokenizer)}
        lines = answer(batch, facts, self.tokenizer)
        prediction = _Prediction(f"p{len(self.predictions)}", lines, self.faults, is_work)
        self.predictions[prediction.id] = prediction
        asyncio.get_running_loop().create_task(prediction.run())
        return JSONResponse(prediction.as_json(self.url), 201)

    async def _get(self, request):
        self._note(request)
        prediction = self.predictions[request.path_params["id"]]
        return JSONResponse(prediction.as_json(self.url))

    async def _cancel(self, request):
        self._note(request)
        prediction = self.predictions[request.path_params["id"]]
        self.cancelled.append(prediction.id)
        prediction.end("canceled")
        return JSONResponse(prediction.as_json(self.url))

    async def _stream(self, request):
        self._note(request)
        prediction = self.predictions[request.path_params["id"]]
        faults = self.faults
        if faults.gone_after_cut and prediction.num_streams:
            return Response(status_code=404)
        prediction.num_streams += 1
        last = request.headers.get("last-event-id")
        first = 0 if last is None or faults.replays else int(last.split(":")[1]) + 1
        cut = faults.cuts.pop(0) if prediction.is_work and faults.cuts else None
        events = prediction.events_from(first, cut, with_ids=not faults.no_ids)
        return StreamingResponse(events, media_type="text/event-stream")


class _Prediction:
    def __init__(self, id_, lines, faults, is_work):
        self.id = id_
        self.status = "processing"
        self.output = []
        self.num_streams = 0
        self.is_work = is_work
        self._faults = faults if is_work else Faults()
        size = self._faults.chunk_size
        text = "".join(lines)
        self._chunks = lines if size is None else [text[i : i + size] for i in range(0, len(text), size)]
        self._fails_after = self._faults.fails_after.pop(0) if self._faults.fails_after else None
        self._changed = asyncio.Event()
        self.held = asyncio.Event()

    async def run(self):
        for count, chunk in enumerate(self._chunks):
            if count == self._fails_after:
                return self.end("failed")
            if count == self._faults.canceled_after:
                return self.end("canceled")
            if count == self._faults.holds_after:
                await self.held.wait()
            if self.status != "processing":
                return None
            self.output.append(chunk)
            self._change()
            await asyncio.sleep(0)
        return self.end("succeeded")

    def end(self, status):
        if self.status == "processing":
            self.status = status
            self._change()
            self.held.set()

    def _change(self):
        self._changed.set()
        self._changed = asyncio.Event()

    def as_json(self, url):
        shown = None if self._faults.hides_output and self.status == "processing" else list(self.output)
        return {
            "id": self.id,
            "status": self.status,
            "output": shown,
            "error": "the worker died" if self.status == "failed" else None,
            "urls": {
                "get": f"{url}/v1/predictions/{self.id}",
                "cancel": f"{url}/v1/predictions/{self.id}/cancel",
                "stream": f"{url}/stream/{self.id}",
            },
        }

    async def events_from(self, position, cut, *, with_ids):
        sent = 0
        while True:
            while position < len(self.output):
                if sent == cut:
                    raise _Cut
                yield _event("output", self.output[position], f"1690212292:{position}" if with_ids else None)
                position, sent = position + 1, sent + 1
            if self.status != "processing":
                break
            await self._changed.wait()
        if sent == cut:
            raise _Cut
        reasons = {"failed": {"reason": "error"}, "canceled": {"reason": "canceled"}}
        if self.status == "failed":
            yield _event("error", '{"detail": "the worker died"}', "1690212292:e" if with_ids else None)
        yield _event("done", json.dumps(reasons.get(self.status, {})), "1690212292:d" if with_ids else None)


def _event(name, data, id_):
    lines = [f"event: {name}", *([] if id_ is None else [f"id: {id_}"]), *(f"data: {x}" for x in data.split("\n"))]
    return "\n".join(lines) + "\n\n"


async def _cut():
    yield b"{"
    raise _Cut
