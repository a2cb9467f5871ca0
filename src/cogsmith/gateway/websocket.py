"""LMTP at a WebSocket, as `lmql serve-model` offers it.

A client's text is an operation, `VERB {…}`, or a batch of them, `[[VERB, {…}], …]`. Each text becomes one prediction;
the lines of its output come back as texts `VERB [{…}, …]`. A client that leaves cancels what it asked for.

LMQL 0.7.3 waits for ever on a stream that ends without a finish reason, and on one that ends with an error after four
tokens. So the rest of a stream that broke off is asked for here. Where that cannot be, the stream's last token says
"length": LMQL asks for the rest itself, and that answer's error comes first and is shown. For this the last token must
still be here, so from the fourth on each token leaves when the next one comes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from urllib.parse import urlsplit

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from cogsmith import __version__, lmtp
from cogsmith.errors import Overloaded, ProtocolError, UnknownResource
from cogsmith.gateway import present, resumption
from cogsmith.gateway.asked import Operation, operations, plain_failure
from cogsmith.gateway.models import Models
from cogsmith.gateway.prediction import Prediction
from cogsmith.gateway.predictions import Predictions
from cogsmith.gateway.present import Json
from cogsmith.gateway.problems import HTTPProblem, from_error
from cogsmith.gateway.worker import Worker

_MAX_RUNNING = 256
_FORM = 'send VERB {...}, or a batch [["VERB", {...}], ...]'


class _Item(msgspec.Struct):
    """What must be known of an answer: whether it ends its stream."""

    stream_id: int | None
    index: int | None = None
    finish_reason: str | None = None
    error: str | None = None


_item = msgspec.json.Decoder(_Item)
_token = msgspec.json.Decoder(lmtp.Token)

_log = logging.getLogger("cogsmith.gateway")


class LmtpRoutes:
    """The WebSocket of the default model at `/`, of each model at `/NAME`; and what says so.

    A browser that comes to `/` is led to `page`, where there is one.
    """

    def __init__(self, models: Models, predictions: Predictions, *, page: str | None = None) -> None:
        self._models = models
        self._page = page
        self._predictions = predictions

    def routes(self) -> list[BaseRoute]:
        """The page and the sockets."""
        return [
            Route("/", self._about, methods=["GET"]),
            WebSocketRoute("/", self._talk),
            WebSocketRoute("/{name}", self._talk),
        ]

    async def _about(self, request: Request) -> Response:
        if self._page is not None and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(self._page)
        base = present.base_url(request)
        return Json(
            {
                "cogsmith": __version__,
                "lmtp": base.replace("http", "ws", 1),
                "replicate_api": f"{base}/v1",
                "models": {worker.model.name: worker.state for worker in self._models.all()},
            }
        )

    async def _talk(self, socket: WebSocket) -> None:
        try:
            _require_own_page(socket)
            name = socket.path_params.get("name")
            worker = self._models.find(present.LOCAL_OWNER, name) if name else self._models.default()
        except (HTTPProblem, UnknownResource) as error:
            await socket.send_denial_response(from_error(error).response())
            return
        await socket.accept()
        await _Connection(socket, worker, self._predictions).serve()


class _Connection:
    """One client. It may have so many texts answered at once; the next is read when one of them is done."""

    def __init__(self, socket: WebSocket, worker: Worker, predictions: Predictions) -> None:
        self._socket = socket
        self._worker = worker
        self._predictions = predictions
        self._room = anyio.Semaphore(_MAX_RUNNING)

    async def serve(self) -> None:
        """Answer until the client leaves; then end what it asked for."""
        try:
            async with anyio.create_task_group() as running:
                while True:
                    await self._room.acquire()
                    running.start_soon(self._answer, await self._next())
        except* (WebSocketDisconnect, WebSocketDisconnected):
            pass

    async def _next(self) -> str:
        """The next text; empty for a message that is none. Raises WebSocketDisconnect."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        return message.get("text") or ""

    async def _answer(self, text: str) -> None:
        try:
            batch, streams = _read(text)
            await self._predict(batch, streams)
        except ProtocolError as error:
            await self._send([lmtp.encode_items([lmtp.MessageError(stream_id=None, error=str(error))])])
        finally:
            self._room.release()

    async def _predict(self, batch: str, streams: _Streams) -> None:
        """Answer a batch. What a model left without an end, as it does with a late error, is asked for once more."""
        rest: str | None = batch
        while rest:
            prediction = await self._run(rest, streams)
            goes_on = prediction is not None and prediction.status == "succeeded" and prediction.has_output
            rest = resumption.rest_of(rest, prediction.output) if prediction is not None and goes_on else None
        await self._send(streams.broken_off())

    async def _run(self, batch: str, streams: _Streams) -> Prediction | None:
        """Run one prediction and pass on what it gives; return it, or None where there is no room for it."""
        name = f"{present.LOCAL_OWNER}/{self._worker.model.name}"
        try:
            prediction = self._predictions.create(self._worker, {"ops_batch_json": batch}, model_ref=name)
        except Overloaded as error:
            await self._send(streams.failed(str(error)))
            return None
        try:
            async for chunk in prediction.chunks_from():
                await self._send(streams.regrouped(chunk))
            if prediction.status != "succeeded":
                reason = f"the prediction {prediction.status}: {prediction.error or 'no reason given'}"
                # What has given output was taken as it is, and can fail only with its server.
                await self._send(streams.failed(reason, interrupted=prediction.has_output))
        finally:
            if not prediction.ended:
                self._predictions.cancel(prediction.id)
        return prediction

    async def _send(self, texts: Iterable[str]) -> None:
        for text in texts:
            await self._socket.send_text(text)


@dataclass(slots=True)
class _Stream:
    """A stream that has not ended. `held` is its last token's payload, where that has not been sent yet."""

    stream_id: int
    verb: str
    version: str | None
    num_tokens: int = 0
    held: str | None = None

    def receive(self, verb: str, payload: str) -> Iterator[tuple[str, str]]:
        """Yield the lines to send now that this one has come, which does not end the stream."""
        yield from self.release()
        self.num_tokens += 1
        is_plain = self.verb == lmtp.Generate.verb and self.version is None
        if is_plain and self.num_tokens >= lmtp.TOKENS_BEFORE_COMMITTED:
            self.held = payload
        else:
            yield verb, payload

    def release(self) -> Iterator[tuple[str, str]]:
        """Yield the line that is held, if any: another one has come."""
        held, self.held = self.held, None
        if held is not None:
            yield lmtp.Token.verb, held

    def end(self, reason: str, *, interrupted: bool = False) -> lmtp.AnyReply:
        """What ends the stream early, for `reason`, in the form that its version of LMTP has for it."""
        if self.held is not None:
            _log.warning("stream %s ends after %d tokens: %s", self.stream_id, self.num_tokens, reason)
            return msgspec.structs.replace(_token.decode(self.held), finish_reason="length")
        if self.version is not None:
            finish_reason: lmtp.EndReason = "interrupted" if interrupted else "error"
            return lmtp.End(stream_id=self.stream_id, finish_reason=finish_reason, error=reason)
        return plain_failure(self.stream_id, self.verb, reason)


class _Streams:
    """The streams that one text asked for and that have not ended."""

    def __init__(self, operations: Iterable[tuple[str, Operation]]) -> None:
        self._open = {
            operation.stream_id: _Stream(operation.stream_id, verb, operation.lmtp) for verb, operation in operations
        }

    def regrouped(self, chunk: str) -> Iterator[str]:
        """Yield the lines of a chunk of output, which are whole, as texts: lines of one verb that follow each other."""
        lines = (sent for line in chunk.split("\n") if line for sent in self._received(line))
        for verb, group in groupby(lines, key=itemgetter(0)):
            yield f"{verb} [{', '.join(payload for _, payload in group)}]"

    def broken_off(self) -> Iterator[str]:
        """Yield the end of each 1.0 stream that the model ended without a reason: what it does after a late error."""
        for stream in self._open.values():
            if stream.version is None:
                yield lmtp.encode_items([stream.end("the model ended this stream early; its log says why")])

    def failed(self, reason: str, *, interrupted: bool = False) -> Iterator[str]:
        """Yield the end, for `reason`, of every stream. A 1.1 client takes it for those of the branches that go on."""
        ended, self._open = self._open, {}
        for stream in ended.values():
            yield lmtp.encode_items([stream.end(reason, interrupted=interrupted)])

    def _received(self, line: str) -> Iterator[tuple[str, str]]:
        """Yield the lines to send, as verb and payload, now that this one has come."""
        verb, _, payload = line.partition(" ")
        item = _item.decode(payload)
        stream = self._open.get(item.stream_id) if item.stream_id is not None else None
        if stream is None:
            yield verb, payload
        elif not _ends_stream(verb, item):
            yield from stream.receive(verb, payload)
        else:
            del self._open[stream.stream_id]
            if stream.held is not None and item.error is not None:
                verb, _, payload = lmtp.encode_line(stream.end(item.error)).rstrip("\n").partition(" ")
            else:
                yield from stream.release()
            yield verb, payload


def _ends_stream(verb: str, item: _Item) -> bool:
    is_last = item.finish_reason is not None or item.error is not None
    return verb == lmtp.Info.verb or (is_last and item.index is None)


def _read(text: str) -> tuple[str, _Streams]:
    """Return the batch that a client's text is, and its streams. Raises ProtocolError where it is neither form."""
    if not text.lstrip().startswith("["):
        verb, _, payload = text.partition(" ")
        text = f"[[{json.dumps(verb)}, {payload}]]"
    try:
        return text, _Streams(operations(text))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ProtocolError(f"the message is no LMTP: {error}", fix=_FORM) from error


def _require_own_page(socket: WebSocket) -> None:
    """Refuse the scripts of other web pages: a browser lets them open any WebSocket, loopback's too."""
    origin = socket.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != socket.headers.get("host"):
        raise HTTPProblem(403, "Forbidden", f"Pages of {origin} may not open this socket")
