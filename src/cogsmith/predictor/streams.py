"""From one engine request's events to what its client is told, in the client's version of LMTP.

What a 1.0 client can bear decides how it is told of the end. LMQL 0.7.3 shows an error that comes among the first four
items of a stream and hangs for ever on a later one; a stream that ends with no finish reason makes it ask for the
rest, and the next answer's error comes first and is shown. So a late error is not sent, the stream just ends. A client
of 1.1 is told of every end, once, by END.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cogsmith import lmtp
from cogsmith.detokenize import Stop, Stopping
from cogsmith.engine.request import FailedEvent, TokenEvent
from cogsmith.predictor.mailbox import EndedEvent, StreamEvent

_log = logging.getLogger("cogsmith.predictor")


class Stream(Protocol):
    """Turns events into replies until it has `ended`."""

    ended: bool

    def receive(self, event: StreamEvent) -> Iterator[lmtp.AnyReply]:
        """Yield what the client is told of an event. Nothing may follow once it has `ended`."""


@dataclass(slots=True)
class PlainStream:
    """A stream of LMTP 1.0."""

    stream_id: int
    num_sent: int = 0
    ended: bool = False

    def receive(self, event: StreamEvent) -> Iterator[lmtp.AnyReply]:
        """Yield a TOKEN for a token, and for a failure where it can still be told."""
        if isinstance(event, FailedEvent | EndedEvent):
            self.ended = True
            if self.num_sent < lmtp.TOKENS_BEFORE_COMMITTED:
                yield lmtp.TokenError(stream_id=self.stream_id, error=event.message)
            else:
                _log.warning("stream %s ends after %d tokens: %s", self.stream_id, self.num_sent, event.message)
        elif isinstance(event, TokenEvent):
            yield self._token(event)

    def _token(self, event: TokenEvent) -> lmtp.Token:
        self.num_sent += 1
        self.ended = event.finish_reason is not None
        return lmtp.Token(
            token=event.token,
            stream_id=self.stream_id,
            logprob=event.logprob,
            finish_reason=event.finish_reason,
            top_logprobs=event.top_logprobs,
        )


@dataclass(slots=True)
class Branch:
    """One branch of a stream of LMTP 1.1. `clock` gives the seconds since the operation was taken."""

    stream_id: int
    index: int
    num_prompt: int
    clock: Callable[[], float]
    stopping: Stopping | None = None
    num_sent: int = 0
    first_token_ms: float | None = None
    ended: bool = False

    def receive(self, event: StreamEvent) -> Iterator[lmtp.AnyReply]:
        """Yield a TOKEN for a token, and END after the last one or for what ends the branch otherwise."""
        match event:
            case TokenEvent():
                yield from self._token(event)
            case FailedEvent(message):
                yield self._end("error", error=message)
            case EndedEvent(reason):
                yield self._end(reason)

    def _token(self, event: TokenEvent) -> Iterator[lmtp.AnyReply]:
        self.num_sent += 1
        if self.first_token_ms is None:
            self.first_token_ms = self._milliseconds()
        stop = None if self.stopping is None else self.stopping.push(event.token)
        reason = event.finish_reason if stop is None else "stop_sequence"
        yield lmtp.ExtendedToken(
            token=event.token,
            stream_id=self.stream_id,
            index=self.index,
            logprob=event.logprob,
            finish_reason=reason,
            top_logprobs=event.top_logprobs,
            logprobs=event.logprobs,
        )
        if reason is not None:
            yield self._end(reason, stop=stop)

    def _end(self, reason: lmtp.EndReason, *, stop: Stop | None = None, error: str | None = None) -> lmtp.End:
        self.ended = True
        return lmtp.End(
            stream_id=self.stream_id,
            index=self.index,
            finish_reason=reason,
            stop=stop,
            error=error,
            usage=lmtp.Usage(prompt_tokens=self.num_prompt, tokens=self.num_sent),
            timing=lmtp.Timing(first_token_ms=self.first_token_ms, total_ms=self._milliseconds()),
        )

    def _milliseconds(self) -> float:
        return round(1000 * self.clock(), 3)
