"""One LMTP prediction: a batch of operations in, lines out, as they come.

A fault belongs to its stream: the others go on. What a 1.0 client can bear decides how a stream is told. LMQL 0.7.3
shows an error that comes among the first four items of a stream and hangs for ever on a later one; a stream that ends
with no finish reason makes it ask for the rest, and the next answer's error comes first and is shown. So a late error
is not sent, the stream just ends.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from cogsmith import lmtp
from cogsmith.engine.base import Engine, Handle
from cogsmith.engine.request import Event, FailedEvent, GenerateRequest, Request, Sampling, ScoreRequest, TokenEvent
from cogsmith.errors import ProtocolError, RequestError
from cogsmith.manifest import Limits
from cogsmith.predictor.info import model_info
from cogsmith.predictor.mailbox import DeadlinePassed, Mailbox
from cogsmith.predictor.meter import Meter

_log = logging.getLogger("cogsmith.predictor")

# LMQL 0.7.3 starts to act on a stream with this many tokens, and cannot be told of an error any more.
_TOKENS_BEFORE_COMMITTED = 4


@dataclass(slots=True)
class _Stream:
    """A stream that has not ended: whose it is and how far it has come."""

    stream_id: int
    handle: Handle
    num_sent: int = 0


class Session:
    """Runs one batch on an engine."""

    def __init__(self, engine: Engine, limits: Limits, mailbox: Mailbox, meter: Meter) -> None:
        self._engine = engine
        self._limits = limits
        self._mailbox = mailbox
        self._meter = meter
        self._streams: dict[int, _Stream] = {}

    def run(self, batch_json: str) -> Iterator[str]:
        """Yield chunks of whole lines until every stream has ended.

        Raises Cancelled when the client has gone. However it ends, no stream is left running.
        """
        try:
            yield from self._start(batch_json)
            while self._streams:
                lines = [line for key, events in self._mailbox.take() for line in self._lines(key, events)]
                if lines:
                    yield "".join(lines)
        except DeadlinePassed as error:
            yield from self._end_all(str(error))
        finally:
            for stream in self._streams.values():
                stream.handle.cancel()
            self._meter.report()

    def _start(self, batch_json: str) -> Iterator[str]:
        limits = lmtp.BatchLimits(max_bytes=self._limits.max_batch_bytes, max_operations=self._limits.max_operations)
        try:
            batch = lmtp.parse_batch(batch_json, limits)
        except ProtocolError as error:
            yield lmtp.encode_line(lmtp.MessageError(stream_id=None, error=str(error)))
            return
        for warning in batch.warnings:
            _log.warning("%s", warning)
        for key, item in enumerate(batch.items):
            reply = item.reply if isinstance(item, lmtp.Failure) else self._begin(key, item)
            if reply is not None:
                yield lmtp.encode_line(reply)

    def _begin(self, key: int, operation: lmtp.Operation) -> lmtp.Reply | None:
        """Start one operation; return what can be answered at once."""
        if isinstance(operation, lmtp.ModelInfo):
            return lmtp.Info(stream_id=operation.stream_id, model_info=model_info(self._engine.info))
        request = _request(operation)
        try:
            handle = self._engine.submit(request, self._mailbox.sink(key))
        except RequestError as error:
            return lmtp.TokenError(stream_id=operation.stream_id, error=str(error))
        self._streams[key] = _Stream(operation.stream_id, handle)
        self._meter.read(len(request.prompt) + (len(request.scored) if isinstance(request, ScoreRequest) else 0))
        return None

    def _lines(self, key: int, events: tuple[Event, ...]) -> Iterator[str]:
        stream = self._streams.get(key)
        if stream is None:
            return
        for event in events:
            if isinstance(event, FailedEvent):
                yield from self._end(key, event.message)
                return
            stream.num_sent += 1
            self._meter.wrote(1)
            yield lmtp.encode_line(_token(stream.stream_id, event))
            if event.finish_reason is not None:
                del self._streams[key]

    def _end(self, key: int, message: str) -> Iterator[str]:
        stream = self._streams.pop(key)
        stream.handle.cancel()
        if stream.num_sent < _TOKENS_BEFORE_COMMITTED:
            yield lmtp.encode_line(lmtp.TokenError(stream_id=stream.stream_id, error=message))
        else:
            _log.warning("stream %s ends after %d tokens: %s", stream.stream_id, stream.num_sent, message)

    def _end_all(self, message: str) -> Iterator[str]:
        for key in list(self._streams):
            yield from self._end(key, message)


def _request(operation: lmtp.Generate | lmtp.Score) -> Request:
    """Say a protocol operation in the engine's words."""
    if isinstance(operation, lmtp.Score):
        return ScoreRequest(operation.prompt, operation.scored)
    sampling = Sampling(
        temperature=operation.temperature,
        top_p=operation.top_p,
        top_k=operation.top_k,
        repetition_penalty=operation.repetition_penalty,
        presence_penalty=operation.presence_penalty,
        frequency_penalty=operation.frequency_penalty,
    )
    return GenerateRequest(
        operation.prompt, operation.max_tokens, sampling, operation.logit_bias, operation.top_logprobs
    )


def _token(stream_id: int, event: TokenEvent) -> lmtp.Token:
    return lmtp.Token(
        token=event.token,
        stream_id=stream_id,
        logprob=event.logprob,
        finish_reason=event.finish_reason,
        top_logprobs=event.top_logprobs,
    )
