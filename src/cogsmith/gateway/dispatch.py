"""One prediction's way through a model's Cog server: a slot, the server, its events, and what goes wrong on the way.

Cog streams a prediction as server-sent events of its own: `start`, `output` {chunk, index}, `log` {source, data},
`metric`, `completed` {status, error, metrics, …}; `error` where a reader has fallen too far behind. It ends a
prediction whose reader leaves, so the gateway is the only reader and never leaves early.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from cogsmith.errors import CogsmithError, ServeError
from cogsmith.gateway.prediction import Prediction
from cogsmith.gateway.worker import Worker

_MAX_RUNS = 3
# Cog says that it is busy for some time after a slot has become free. After this long something else is wrong.
_BUSY_SECONDS = 5.0
_BUSY_PAUSE_SECONDS = 0.02
_CANCEL_PAUSE_SECONDS = 0.2
# A worker may be silent while it reads long prompts; its server sends a comment each 15 s.
_TIMEOUT = httpx2.Timeout(60.0, pool=None)
_JSON = {"Content-Type": "application/json"}
# What Cog answers where its worker process died: https://github.com/replicate/cog, coglet's orchestrator.
_CRASHES = ("Worker crashed", "Worker fatal", "Failed to send request")


class _Broken(Exception):
    """The server broke off: the prediction may be tried again as long as nobody has seen any of it."""


def client() -> httpx2.AsyncClient:
    """A client for the Cog servers of this machine, with as many connections as there are predictions."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
    return httpx2.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=False)


async def run(http: httpx2.AsyncClient, worker: Worker, prediction: Prediction) -> None:
    """Bring `prediction` to its end on `worker`.

    It waits its turn for a slot. Where the server dies before any output it is queued again, at most twice. A
    prediction that is ended meanwhile is cancelled in Cog too, and keeps its slot until Cog has let go of it.
    """
    try:
        await _run(http, worker, prediction)
    except CogsmithError as error:
        prediction.end("failed", error=str(error))
    finally:
        _remove_leftovers(prediction)


async def _run(http: httpx2.AsyncClient, worker: Worker, prediction: Prediction) -> None:
    reason = ""
    for _ in range(_MAX_RUNS):
        async with worker.slots:
            if prediction.ended:
                return
            try:
                await _attempt(http, await worker.ready(), prediction)
                return
            except (_Broken, httpx2.TransportError) as error:
                reason = str(error) or type(error).__name__
        await worker.suspect()
        if prediction.has_output:
            raise ServeError(f"the model's server broke off after some output: {reason}")
        prediction.requeue()
    raise ServeError(f"the model's server broke off {_MAX_RUNS} times: {reason}")


async def _attempt(http: httpx2.AsyncClient, server: str, prediction: Prediction) -> None:
    if prediction.ended:
        return
    url = f"{server}/predictions/{prediction.id}"
    canceller = asyncio.create_task(_cancel_when_ended(http, url, prediction))
    try:
        completed = await _follow(http, url, prediction)
    finally:
        canceller.cancel()
    error = completed.get("error")
    if completed["status"] == "failed" and str(error).startswith(_CRASHES):
        raise _Broken(error)
    prediction.end(completed["status"], error=error, metrics=completed.get("metrics"))


async def _follow(http: httpx2.AsyncClient, url: str, prediction: Prediction) -> dict[str, Any]:
    """Take the events over into `prediction`; return what Cog says at the end."""
    body = msgspec.json.encode({"input": prediction.input})
    loop = asyncio.get_running_loop()
    busy_until = loop.time() + _BUSY_SECONDS
    while True:
        async with http.sse(url, method="PUT", content=body, headers=_JSON, max_event_size=None) as source:
            if source.response.status_code != 409:
                await _check(source.response)
                return await _read(source, prediction)
        if loop.time() > busy_until:
            raise _Broken("it says that it is at capacity")
        await asyncio.sleep(_BUSY_PAUSE_SECONDS)


async def _check(response: httpx2.Response) -> None:
    status = response.status_code
    if status != 200:
        reason = f"it answered {status}: {(await response.aread()).decode(errors='replace')}"
        raise _Broken(reason) if status >= 500 else ServeError(f"the model's server refused the prediction: {reason}")


async def _read(source: httpx2.EventSource, prediction: Prediction) -> dict[str, Any]:
    async for event in source:
        data = msgspec.json.decode(event.data)
        match event.event:
            case "start":
                prediction.begin()
            case "output":
                prediction.write(data["chunk"])
            case "log":
                prediction.log(data["data"])
            case "completed":
                completed: dict[str, Any] = data
                return completed
            case "error":
                raise _Broken(data["error"])
    raise _Broken("it closed the stream")


async def _cancel_when_ended(http: httpx2.AsyncClient, url: str, prediction: Prediction) -> None:
    """Once `prediction` has ended here, ask Cog to end it too, until it has: a cancel that comes early is lost."""
    await prediction.wait()
    while True:
        with contextlib.suppress(httpx2.TransportError):
            await http.post(f"{url}/cancel")
        await asyncio.sleep(_CANCEL_PAUSE_SECONDS)


def _remove_leftovers(prediction: Prediction) -> None:
    """Cog makes two folders for each prediction and keeps them for ever."""
    shutil.rmtree(Path(tempfile.gettempdir()) / "coglet" / "predictions" / prediction.id, ignore_errors=True)
