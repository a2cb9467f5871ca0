"""Operations that come together -> one batch; the lines it gives -> each operation's own sink.

A server answers a batch in one text where all streams interleave. Every operation here has a `stream_id` of its own,
so that an answer finds its way, and ends alone: closing one of several leaves the others running.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec

from cogsmith import lmtp
from cogsmith.client.transport import Transport
from cogsmith.errors import (
    ClientError,
    CogsmithError,
    DeadlineExceeded,
    InternalError,
    OperationFailed,
    PredictionFailed,
    ProtocolError,
    StreamBroken,
)
from cogsmith.lmtp import AnyOperation, AnyReply
from cogsmith.lmtp.limits import num_branches

Sink = Callable[[AnyReply | CogsmithError], None]
"""Takes an operation's replies, in order. An error is the last it takes."""

# Calls of one moment reach `submit` within a few turns of the event loop; to a server that takes tens of milliseconds
# for a token, this wait is nothing.
_GATHER_SECONDS = 0.002
# Of the bytes that a batch may have; they are estimated.
_FILLED = 0.75
# A prediction whose streams have all ended is about to end: cancelling it then would only make it look cancelled.
_TAIL_SECONDS = 2.0
_CANCEL_SECONDS = 5.0


class Running:
    """An operation on its way, until `over`. Without a `sink`, nobody waits for it."""

    def __init__(self, operation: AnyOperation, sink: Sink | None) -> None:
        self.operation = operation
        self.is_awaited = sink is not None
        self.over = False
        self.batch: _Batch | None = None
        self._sink = sink or (lambda _: None)
        self._open = set(range(num_branches(operation)))

    def take(self, reply: AnyReply) -> None:
        """Pass a reply on, and see whether it is the last."""
        match reply:
            case lmtp.TokenError(error=text) | lmtp.MessageError(error=text):
                self.fail(OperationFailed(text))
                return
            case lmtp.Token(finish_reason=reason):
                self.over = reason is not None
            case lmtp.ExtendedToken(index=index) | lmtp.End(index=int(index)) if index not in self._open:
                self.fail(ProtocolError(f"the server sent {reply} for a branch that is none, or has ended"))
                return
            case lmtp.ExtendedToken():
                pass
            case lmtp.End(index=index):
                self._open -= self._open if index is None else {index}
                self.over = not self._open
            case _:
                self.over = True
        self._sink(reply)

    def fail(self, error: CogsmithError) -> None:
        """End with `error`."""
        if not self.over:
            self.over = True
            self._sink(error)


@dataclass(eq=False, slots=True)
class _Batch:
    """Operations that share a prediction; `live` are those that somebody waits for, by stream."""

    operations: list[AnyOperation]
    live: dict[int, Running]
    task: asyncio.Task[None] | None = None
    had_output: bool = False
    is_abandoned: bool = False

    def fail(self, error: CogsmithError) -> None:
        """End all that are live with `error`."""
        live, self.live = list(self.live.values()), {}
        for running in live:
            running.fail(error)


class Multiplexer:
    """Runs operations on a transport. `first_output` is how long a prediction may stay silent, in seconds."""

    def __init__(self, transport: Transport, first_output: float) -> None:
        self._transport = transport
        self._first_output = first_output
        self._stream_ids = itertools.count(1)
        self._waiting: list[Running] = []
        self._batches: set[_Batch] = set()
        self._is_closed = False
        self.limits = lmtp.DEFAULT_LIMITS
        """What the server takes in one batch; larger ones are split."""

    def through(self, transport: Transport) -> Multiplexer:
        """Return one over another transport to the same server."""
        other = Multiplexer(transport, self._first_output)
        other.limits = self.limits
        return other

    def submit(self, operation: AnyOperation, sink: Sink | None = None) -> Running:
        """Send `operation`, under a stream id of its own, together with what else comes in this moment."""
        running = Running(msgspec.structs.replace(operation, stream_id=next(self._stream_ids)), sink)
        if self._is_closed:
            asyncio.get_running_loop().call_soon(running.fail, _closed())
            return running
        if not self._waiting:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._send)
        self._waiting.append(running)
        return running

    async def ask(self, operation: AnyOperation) -> AnyReply:
        """Send an operation that has one reply; return that. Raises CogsmithError."""
        reply: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()

        def take(item: AnyReply | CogsmithError) -> None:
            if not reply.done():
                reply.set_exception(item) if isinstance(item, CogsmithError) else reply.set_result(item)

        running = self.submit(operation, take)
        try:
            return await reply
        finally:
            self.cancel(running)

    def cancel(self, running: Running) -> None:
        """End one operation; the last of a prediction ends that. Nothing goes to its sink any more. Idempotent."""
        if running.over:
            return
        running.over = True
        batch = running.batch
        if batch is None or batch.task is None:
            return  # not sent yet, and will not be
        batch.live.pop(running.operation.stream_id, None)
        key = getattr(running.operation, "cancel_key", None)
        if not batch.live:
            batch.is_abandoned = True
            # A sink may be what calls this; then the task sees it by itself, and may end its transport in peace.
            if batch.task is not asyncio.current_task():
                batch.task.cancel()
        elif key is not None:
            self.submit(lmtp.Cancel(cancel_key=key, stream_id=0))

    async def ended(self, cancelled: Iterable[Running]) -> None:
        """Wait, some seconds at most, until the predictions that ended with these operations are."""
        batches = {running.batch for running in cancelled if running.batch is not None and not running.batch.live}
        tasks = [batch.task for batch in batches if batch.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    async def aclose(self) -> None:
        """End everything and close the transport. Idempotent."""
        self._is_closed = True
        for running in self._waiting:
            running.fail(_closed())
        tails = [batch.task for batch in self._batches if batch.task and not batch.live]
        if tails:
            await asyncio.wait(tails, timeout=_TAIL_SECONDS)
        tasks = [batch.task for batch in self._batches if batch.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
        await self._transport.aclose()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for group in _groups([running for running in waiting if not running.over], self.limits):
            live = {running.operation.stream_id: running for running in group if running.is_awaited}
            batch = _Batch([running.operation for running in group], live)
            for running in group:
                running.batch = batch
            batch.task = asyncio.create_task(self._run(batch))
            self._batches.add(batch)
            batch.task.add_done_callback(partial(self._forget, batch))

    def _forget(self, batch: _Batch, _: asyncio.Task[None]) -> None:
        self._batches.discard(batch)

    async def _run(self, batch: _Batch) -> None:
        """Run one prediction to its end. What has not ended by then fails."""
        error: CogsmithError
        try:
            await self._read(batch)
            error = StreamBroken("the prediction ended before the stream did")
        except TimeoutError:
            error = DeadlineExceeded(
                f"the server gave no output within {self._first_output:g} seconds", fix="raise Timeouts.first_output"
            )
        except PredictionFailed as failed:
            # What has begun to give output can fail only with its server.
            error = StreamBroken(failed.message) if batch.had_output else failed
        except CogsmithError as caught:
            error = caught
        except asyncio.CancelledError:
            error = _closed()
        except Exception as fault:
            error = InternalError(f"reading a prediction failed: {fault!r}")
            error.__cause__ = fault
        batch.fail(error)

    async def _read(self, batch: _Batch) -> None:
        reader = lmtp.LineReader()
        pieces = self._transport.run(batch.operations)
        async with contextlib.aclosing(pieces), asyncio.timeout(self._first_output) as silence:
            async for piece in pieces:
                silence.reschedule(None)
                batch.had_output = True
                for line in reader.feed(piece):
                    for message in lmtp.parse_line(line):
                        if isinstance(message, AnyReply):
                            _deliver(batch, message)
                if batch.is_abandoned or not (batch.live or self._transport.ends_by_itself):
                    return
        reader.close()


def _deliver(batch: _Batch, message: AnyReply) -> None:
    """Give a reply to the operation that it answers, if that is not over."""
    if isinstance(message, lmtp.MessageError) and message.stream_id is None:
        # Our operations have ids that can be read, so this refuses the batch.
        batch.fail(OperationFailed(message.error))
    elif message.stream_id in batch.live:
        running = batch.live[message.stream_id]
        running.take(message)
        if running.over:
            batch.live.pop(message.stream_id, None)


def _groups(waiting: Iterable[Running], limits: lmtp.BatchLimits) -> Iterator[list[Running]]:
    """Split into batches that a server takes."""
    max_bytes = _FILLED * limits.max_bytes
    group: list[Running] = []
    branches = size = 0
    for running in waiting:
        branches += num_branches(running.operation)
        size += _size(running.operation)
        if group and (len(group) == limits.max_operations or branches > limits.max_branches or size > max_bytes):
            yield group
            group, branches, size = [], num_branches(running.operation), _size(running.operation)
        group.append(running)
    if group:
        yield group


def _size(operation: AnyOperation) -> int:
    """Roughly the bytes of an operation's JSON: ids and biases are what may be many."""
    ids = len(getattr(operation, "prompt", ())) + len(getattr(operation, "scored", ()))
    for name in ("options", "inputs", "texts"):
        ids += sum(map(len, getattr(operation, name, None) or ()))
    allow = getattr(operation, "allow", None)
    mask = 0 if allow is None else len(allow.bits or "") + 18 * len(allow.ranges or ())
    return 1024 + 8 * ids + 24 * len(getattr(operation, "logit_bias", ())) + mask


def _closed() -> CogsmithError:
    return ClientError("the client was closed")
