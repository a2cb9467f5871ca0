"""A stand-in for a model's Cog server, and a gateway before it, both on loopback.

The stand-in says what Cog 0.23.1 was seen to say; what it does with a prediction is a plan of the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from cogsmith.gateway.app import create_app
from cogsmith.gateway.models import Models, ServedModel
from cogsmith.gateway.predictions import PredictionLimits, Predictions
from cogsmith.gateway.worker import Worker

VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
SCHEMA = {
    "openapi": "3.0.2",
    "info": {"title": "Cog", "version": "0.23.1"},
    "paths": {"/predictions": {"post": {"x-cog-streaming": True}}},
    "components": {
        "schemas": {
            "Input": {
                "type": "object",
                "required": ["chunks"],
                "properties": {
                    "chunks": {"type": "array", "items": {"type": "string"}},
                    "options": {"type": "array"},
                    "hold": {"type": "boolean", "default": False},
                    "steps": {"type": "integer", "minimum": 1, "maximum": 50},
                    "format": {"allOf": [{"$ref": "#/components/schemas/format"}]},
                    "image": {"type": "string", "format": "uri"},
                },
            },
            "format": {"type": "string", "title": "format", "enum": ["webp", "png"]},
            "Output": {"type": "array", "items": {"type": "string"}, "x-cog-array-type": "iterator"},
        }
    },
}


class Cog:
    """Answers as a Cog server: by default with the input's `chunks`, and with `hold` only until it is cancelled.

    `refusals` are answered first, one for each attempt: (status, body). `plans` come next: what to say instead.
    """

    def __init__(self):
        self.refusals = []
        self.plans = []
        self.attempts = []
        self.cancels = []
        self.running = {}
        self.most_running = 0
        self.released = asyncio.Event()
        routes = [
            Route("/predictions/{id}", self._predict, methods=["PUT"]),
            Route("/predictions/{id}/cancel", self._cancel, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def _predict(self, request):
        prediction_id, inputs = request.path_params["id"], (await request.json())["input"]
        self.attempts.append(prediction_id)
        if self.refusals:
            status, body = self.refusals.pop(0)
            return JSONResponse(body, status)
        plan = self.plans.pop(0) if self.plans else self.say_chunks
        return StreamingResponse(self._events(prediction_id, plan, inputs), media_type="text/event-stream")

    async def _events(self, prediction_id, plan, inputs):
        cancelled = self.running[prediction_id] = asyncio.Event()
        self.most_running = max(self.most_running, len(self.running))
        try:
            yield said("start", id=prediction_id, status="processing")
            async for event in plan(inputs, cancelled):
                yield event
        finally:
            del self.running[prediction_id]

    async def say_chunks(self, inputs, cancelled):
        for index, chunk in enumerate(inputs["chunks"]):
            yield said("output", chunk=chunk, index=index)
        if inputs.get("hold"):
            released = asyncio.create_task(self.released.wait())
            ended = asyncio.create_task(cancelled.wait())
            await asyncio.wait([released, ended], return_when=asyncio.FIRST_COMPLETED)
        status = "canceled" if cancelled.is_set() else "succeeded"
        yield said("completed", status=status, output=inputs["chunks"], logs="", metrics={"predict_time": 0.25})

    async def _cancel(self, request):
        prediction_id = request.path_params["id"]
        self.cancels.append(prediction_id)
        if prediction_id not in self.running:
            return JSONResponse({}, 404)
        self.running[prediction_id].set()
        return JSONResponse({})


def said(name, **data):
    """An event as Cog writes it."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def saying(*events):
    """A plan that says `events`, and then closes the stream."""

    async def plan(inputs, cancelled):
        for event in events:
            yield event

    return plan


class ElsewhereWorker(Worker):
    """A worker whose server the test runs."""

    def __init__(self, model, url):
        super().__init__(model)
        self.url = url
        self.num_suspected = 0
        self.num_asked = 0
        self.booted = asyncio.Event()
        self.booted.set()

    async def ready(self):
        self.num_asked += 1
        await self.booted.wait()
        return self.url

    async def suspect(self):
        self.num_suspected += 1


class Gateway:
    """A running gateway over one model, "tiny": its HTTP client, its state and the Cog server behind it."""

    def __init__(self, cog, worker, predictions, http):
        self.cog = cog
        self.worker = worker
        self.predictions = predictions
        self.http = http

    async def create(self, chunks=("a", "b"), *, headers=None, path="/v1/predictions", **inputs):
        """Create a prediction and return it as answered."""
        body = {"input": {"chunks": list(chunks), **inputs}}
        if path == "/v1/predictions":
            body["version"] = VERSION
        answer = await self.http.post(path, json=body, headers=headers)
        assert answer.status_code in (201, 202), answer.text
        return answer.json()

    async def read(self, prediction, **headers):
        """Read the prediction's stream to its end; return (id, event, data) of each event."""
        async with self.http.sse(prediction["urls"]["stream"], headers=headers) as source:
            return [(event.id, event.event, event.data) async for event in source]

    async def ended(self, prediction):
        """The prediction once it has ended."""
        await asyncio.wait_for(self.predictions.get(prediction["id"]).wait(), 10)
        return (await self.http.get(prediction["urls"]["get"])).json()


@contextlib.asynccontextmanager
async def gateway(folder: Path = Path("nowhere"), *, concurrency=4, limits: PredictionLimits | None = None):
    """Run a gateway before a stand-in Cog server."""
    cog = Cog()
    model = ServedModel("tiny", folder, VERSION, datetime(2026, 1, 2, tzinfo=UTC), concurrency, SCHEMA, "a tiny model")
    async with serving(cog.app) as cog_url:
        worker = ElsewhereWorker(model, cog_url)
        predictions = Predictions(limits)
        async with (
            serving(create_app(Models([worker]), predictions)) as url,
            httpx2.AsyncClient(base_url=url, timeout=20.0, trust_env=False, verify=False) as http,
        ):
            yield Gateway(cog, worker, predictions, http)


@contextlib.asynccontextmanager
async def serving(app) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port; yield its URL. uvicorn's parts by hand: its own loop takes its time."""
    # With the protocol named, asyncio switches Nagle's algorithm off: otherwise each answer waits for 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for listening in server.servers:
            listening.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        await asyncio.wait_for(server.lifespan.shutdown(), 20)


async def until(condition, seconds=10.0):
    """Wait until `condition()` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def talk(conversation, **settings):
    """Run `conversation(local)` with a gateway; return what it returns."""

    async def body():
        async with gateway(**settings) as local:
            return await conversation(local)

    return asyncio.run(body())


def start(local, chunks=("a", "b"), **inputs):
    """Create a prediction without HTTP."""
    return local.predictions.create(local.worker, {"chunks": list(chunks), **inputs}, model_ref="me/tiny")
