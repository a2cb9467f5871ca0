"""One prediction's way through a model's Cog server: a slot, the server, its events, and what goes wrong on the way.

Cog streams a prediction as server-sent events of its own: `start`, `output` {chunk, index}, `log` {source, data},
`metric`, `completed` {status, error, metrics, …}; `error` where a reader has fallen too far behind. It ends a
prediction whose reader leaves, so the gateway is the only reader and never leaves early.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from anyio import to_thread

from cogsmith.errors import CogsmithError, ServeError
from cogsmith.gateway import resumption
from cogsmith.gateway.files import FileStore
from cogsmith.gateway.handed_over import names_any, with_files
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
# There whatever TMPDIR says.
_LEFTOVERS = Path("/tmp/coglet/predictions")


class _Broken(Exception):
    """The server broke off."""


def client() -> httpx2.AsyncClient:
    """A client for the Cog servers of this machine, with as many connections as there are predictions."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
    return httpx2.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=False)


async def run(http: httpx2.AsyncClient, worker: Worker, prediction: Prediction, files: FileStore) -> None:
    """Bring `prediction`, whose input may name some of `files`, to its end on `worker`.

    It waits its turn for a slot. Where the server dies it is queued again, at most twice: from the beginning as long as
    nobody has seen any output, then for what an LMTP batch still lacks, if that can be asked for. A prediction that is
    ended meanwhile is cancelled in Cog too, and keeps its slot until Cog has let go of it.
    """
    try:
        await _run(http, worker, prediction, files)
    except CogsmithError as error:
        prediction.explain(str(error))
        prediction.end("failed", error=str(error))


async def _run(http: httpx2.AsyncClient, worker: Worker, prediction: Prediction, files: FileStore) -> None:
    reason = ""
    inputs = prediction.input
    for run_number in range(_MAX_RUNS):
        async with worker.slots:
            if prediction.ended:
                return
            # Cog would take a second request of the same id for a reader of the first.
            name = f"{prediction.id}{run_number or ''}"
            try:
                url = f"{await worker.ready()}/predictions/{name}"
                sent = inputs
                if names_any(inputs, files):
                    sent = await to_thread.run_sync(with_files, inputs, worker.model.openapi_schema, files)
                await _attempt(http, url, sent, prediction)
                return
            except (_Broken, httpx2.TransportError) as error:
                reason = str(error) or type(error).__name__
            finally:
                _remove_leftovers(name)
        await worker.suspect()
        inputs = _left_to_do(prediction, reason)
    raise ServeError(f"the model's server broke off {_MAX_RUNS} times: {reason}")


def _left_to_do(prediction: Prediction, reason: str) -> dict[str, Any]:
    """Return the inputs with which an interrupted prediction goes on. Raises ServeError where it cannot."""
    if not prediction.has_output:
        prediction.requeue()
        return prediction.input
    rest = resumption.rest_of(prediction.input.get("ops_batch_json", ""), prediction.output)
    if rest is None:
        raise ServeError(f"the model's server broke off after some output: {reason}")
    if not rest:
        prediction.end("succeeded")
    return prediction.input | {"ops_batch_json": rest}


async def _attempt(http: httpx2.AsyncClient, url: str, inputs: dict[str, Any], prediction: Prediction) -> None:
    if prediction.ended:
        return
    canceller = asyncio.create_task(_cancel_when_ended(http, url, prediction))
    try:
        completed = await _follow(http, url, inputs, prediction)
    finally:
        canceller.cancel()
    error = completed.get("error")
    if completed["status"] == "failed" and str(error).startswith(_CRASHES):
        raise _Broken(error)
    if completed["status"] == "failed":
        prediction.explain(f"the prediction failed: {error or 'no reason given'}")
    prediction.end(completed["status"], error=error, metrics=completed.get("metrics"))


async def _follow(http: httpx2.AsyncClient, url: str, inputs: dict[str, Any], prediction: Prediction) -> dict[str, Any]:
    """Take the events over into `prediction`; return what Cog says at the end."""
    body = msgspec.json.encode({"input": inputs})
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


def _remove_leftovers(name: str) -> None:
    """Cog makes two folders for each prediction and keeps them for ever."""
    shutil.rmtree(_LEFTOVERS / name, ignore_errors=True)
