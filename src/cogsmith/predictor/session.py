"""One LMTP prediction: a batch of operations in, lines out, as they come.

A fault belongs to its stream: the others go on. How a stream is told of its tokens and its end is `streams`' matter.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cogsmith import lmtp
from cogsmith.detokenize import Stopping
from cogsmith.engine.base import Engine, Handle
from cogsmith.engine.request import AnyRequest, FailedEvent, TokenEvent
from cogsmith.errors import ProtocolError, RequestError
from cogsmith.manifest import Limits
from cogsmith.predictor.info import model_info
from cogsmith.predictor.mailbox import DeadlinePassed, EndedEvent, Mailbox, StreamEvent
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.registry import RUNNING, Registry
from cogsmith.predictor.requests import branch_requests, num_read, plain_request, with_images
from cogsmith.predictor.streams import Branch, PlainStream, Stream
from cogsmith.predictor.text import plain_decode
from cogsmith.predictor.tokenizer import tokenizer_files
from cogsmith.predictor.vectors import MOST_IN_A_LINE, VectorStream, embed_request

if TYPE_CHECKING:
    from cogsmith.engine.images import Pictures

_log = logging.getLogger("cogsmith.predictor")


@dataclass(frozen=True, slots=True)
class _Running:
    """A stream, or branch, that has not ended: what turns its events into replies, and the engine's request."""

    stream: Stream
    handle: Handle
    cancel_key: str | None


class Session:
    """Runs one batch on an engine.

    `tokenizer` is the model's, None where it has none; `pictures` the images that came with the batch, for a model that
    reads some: every prompt with image tokens is of all of them. `registry` knows the branches that other predictions
    may cancel.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        mailbox: Mailbox,
        meter: Meter,
        *,
        tokenizer: Any | None = None,
        pictures: Pictures | None = None,
        registry: Registry = RUNNING,
    ) -> None:
        self._engine = engine
        self._batch_limits = _batch_limits(limits)
        self._mailbox = mailbox
        self._meter = meter
        self._tokenizer = tokenizer
        self._pictures = pictures
        self._registry = registry
        self._running: dict[int, _Running] = {}
        self._keys = itertools.count()
        self._bitset = functools.cache(functools.partial(lmtp.bitset, size=engine.info.head_size))

    def run(self, batch_json: str) -> Iterator[str]:
        """Yield chunks of whole lines until every stream has ended.

        Raises Cancelled when the client has gone. However it ends, no stream is left running.
        """
        try:
            yield from self._start(batch_json)
            while self._running:
                deliveries = self._mailbox.take()
                lines = [line for key, events in deliveries for line in self._lines(key, *events)]
                if lines:
                    yield "".join(lines)
        except DeadlinePassed as error:
            for key in list(self._running):
                yield from self._lines(key, EndedEvent("deadline", str(error)))
        finally:
            for key in list(self._running):
                self._close(key)
            self._meter.report()

    def _start(self, batch_json: str) -> Iterator[str]:
        try:
            batch = lmtp.parse_batch(batch_json, self._batch_limits)
        except ProtocolError as error:
            yield lmtp.encode_line(lmtp.MessageError(stream_id=None, error=str(error)))
            return
        for warning in batch.warnings:
            _log.warning("%s", warning)
        for item in batch.items:
            replies = [item.reply] if isinstance(item, lmtp.Failure) else self._begin(item)
            for reply in replies:
                yield lmtp.encode_line(reply)

    def _begin(self, operation: lmtp.AnyOperation) -> Iterator[lmtp.AnyReply]:
        """Start one operation; yield what can be answered at once."""
        stream_id = operation.stream_id
        match operation:
            case lmtp.ModelInfo():
                facts = model_info(self._engine.info, self._batch_limits, self._tokenizer)
                yield lmtp.Info(stream_id=stream_id, model_info=facts)
            case lmtp.Cancel(cancel_key=key):
                yield lmtp.Cancelled(stream_id=stream_id, cancelled=self._registry.cancel(key))
            case lmtp.GetTokenizer():
                yield self._tokenizer_files(stream_id)
            case lmtp.ExtendedGenerate() | lmtp.ExtendedScore():
                yield from self._begin_branches(operation)
            case lmtp.Embed():
                yield from self._begin_vectors(operation)
            case lmtp.Generate() | lmtp.Score():
                yield from self._begin_plain(operation)

    def _begin_vectors(self, operation: lmtp.Embed) -> Iterator[lmtp.AnyReply]:
        try:
            request = embed_request(operation, self._tokenizer, self._engine.info, max_values=MOST_IN_A_LINE)
        except RequestError as error:
            yield lmtp.End(stream_id=operation.stream_id, finish_reason="error", error=str(error))
            return
        stream = VectorStream(operation.stream_id)
        yield from self._submit(request, stream, operation.deadline_ms, operation.cancel_key)

    def _tokenizer_files(self, stream_id: int) -> lmtp.AnyReply:
        try:
            tokenizer, special = tokenizer_files(self._tokenizer)
        except RequestError as error:
            return lmtp.End(stream_id=stream_id, finish_reason="error", error=str(error))
        return lmtp.TokenizerFiles(stream_id=stream_id, tokenizer=tokenizer, special=special)

    def _begin_plain(self, operation: lmtp.Generate | lmtp.Score) -> Iterator[lmtp.AnyReply]:
        stream = PlainStream(operation.stream_id)
        try:
            request = with_images(plain_request(operation), self._pictures)
        except RequestError as error:
            yield from stream.receive(FailedEvent(str(error)))
            return
        yield from self._submit(request, stream)

    def _begin_branches(self, operation: lmtp.ExtendedGenerate | lmtp.ExtendedScore) -> Iterator[lmtp.AnyReply]:
        for index, asked in enumerate(branch_requests(operation, self._bitset)):
            try:
                stopping = self._stopping(operation)
                request = with_images(asked, self._pictures)
            except RequestError as error:
                yield lmtp.End(stream_id=operation.stream_id, finish_reason="error", error=str(error))
                return
            branch = Branch(operation.stream_id, index, len(request.prompt), self._mailbox.elapsed, stopping)
            yield from self._submit(request, branch, operation.deadline_ms, operation.cancel_key)

    def _stopping(self, operation: lmtp.ExtendedGenerate | lmtp.ExtendedScore) -> Stopping | None:
        """What a branch of the operation stops at. Raises RequestError for a text that no tokenizer can find."""
        if isinstance(operation, lmtp.ExtendedScore) or not operation.stop:
            return None
        if self._tokenizer is None and any(isinstance(stop, str) for stop in operation.stop):
            raise RequestError("this model came without a tokenizer, so it knows no texts", fix="stop at token ids")
        decode = None if self._tokenizer is None else plain_decode(self._tokenizer)
        return Stopping(operation.stop, operation.min_tokens, decode, operation.prompt)

    def _submit(
        self, request: AnyRequest, stream: Stream, deadline_ms: int | None = None, cancel_key: str | None = None
    ) -> Iterator[lmtp.AnyReply]:
        """Start one engine request; yield its refusal."""
        key = next(self._keys)
        try:
            handle = self._engine.submit(request, self._mailbox.sink(key), client=self._mailbox)
        except RequestError as error:
            yield from stream.receive(FailedEvent(str(error)))
            return
        self._running[key] = _Running(stream, handle, cancel_key)
        self._meter.read(num_read(request))
        if deadline_ms is not None:
            self._mailbox.set_deadline(key, deadline_ms / 1000)
        if cancel_key is not None:
            self._registry.add(cancel_key, self._mailbox, key)

    def _lines(self, key: int, *events: StreamEvent) -> Iterator[str]:
        """Yield what the client of one stream is told of its events."""
        for event in events:
            running = self._running.get(key)
            if running is None:
                return
            if isinstance(event, TokenEvent):
                self._meter.wrote(1)
            for reply in running.stream.receive(event):
                yield lmtp.encode_line(reply)
            if running.stream.ended:
                self._close(key)

    def _close(self, key: int) -> None:
        """Forget a stream, and stop it where it runs."""
        running = self._running.pop(key)
        running.handle.cancel()
        if running.cancel_key is not None:
            self._registry.remove(running.cancel_key, self._mailbox, key)


def _batch_limits(limits: Limits) -> lmtp.BatchLimits:
    """No more branches than the server has rows and places in its queue."""
    return lmtp.BatchLimits(
        max_bytes=limits.max_batch_bytes,
        max_operations=limits.max_operations,
        max_branches=limits.max_batch_size + limits.max_queue,
    )
