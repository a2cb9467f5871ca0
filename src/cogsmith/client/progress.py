"""One call on its way, over breaks, from its plan to the last token of all its branches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from cogsmith import lmtp
from cogsmith.client.multiplexer import Multiplexer, Running
from cogsmith.client.recovery import Call, Leg, rest
from cogsmith.client.results import Branch, Generation, Token
from cogsmith.detokenize import Stop, Stopping
from cogsmith.errors import ClientError, CogsmithError, DeadlineExceeded, InternalError, OperationFailed, StreamBroken
from cogsmith.lmtp import (
    AnyReply,
    End,
    EndReason,
    ExtendedGenerate,
    ExtendedScore,
    ExtendedToken,
    Generate,
    Timing,
    Usage,
)


@dataclass(slots=True)
class Plan:
    """What a call needs done: its legs, and for servers that cannot stop, who watches each branch."""

    legs: list[Leg]
    watches: Sequence[Stopping] = ()

    @property
    def num_branches(self) -> int:
        """Branches of the call."""
        return sum(len(leg.indices) for leg in self.legs)


@dataclass(slots=True)
class _State:
    """A branch as far as it has come."""

    num_prompt: int
    max_tokens: int | None
    tokens: list[Token] = field(default_factory=list)
    finish_reason: EndReason | None = None
    stop: Stop | None = None


class Progress:
    """A call, from its making on. `next_token` until that is None, or `aclose`; a Stream is what callers hold of it."""

    def __init__(
        self,
        plan: Callable[[], Awaitable[Plan]],
        multiplexer: Multiplexer,
        *,
        deadline: float | None,
        max_recoveries: int,
    ) -> None:
        self._multiplexer = multiplexer
        self._max_recoveries = max_recoveries
        self._running: dict[Leg, Running] = {}
        self._branches: list[_State] = []
        self._watches: Sequence[Stopping] = ()
        self._tokens: asyncio.Queue[Token | None] = asyncio.Queue()
        self._is_over = False
        self._error: CogsmithError | None = None
        self.prompt: tuple[int, ...] = ()
        self.timing: Timing | None = None
        self._seconds = deadline
        self._deadline = None if deadline is None else time.monotonic() + deadline
        self._loop = loop = asyncio.get_running_loop()
        self._timer = None if deadline is None else loop.call_later(deadline, self._fail, self._late())
        self._started = loop.create_task(self._start(plan))

    @property
    def finish_reason(self) -> EndReason | None:
        """Why the first branch ended; None while it has not."""
        return self._branches[0].finish_reason if self._branches else None

    @property
    def usage(self) -> Usage:
        """Tokens that have come, over all branches; the prompt counts in each."""
        return Usage(
            prompt_tokens=sum(branch.num_prompt for branch in self._branches),
            tokens=sum(len(branch.tokens) for branch in self._branches),
        )

    def generation(self) -> Generation:
        """Return all that has come."""
        branches = tuple(Branch(tuple(state.tokens), state.finish_reason, state.stop) for state in self._branches)
        return Generation(branches, self.usage, self.timing)

    async def aclose(self) -> None:
        """End the call, where it has not ended. Idempotent."""
        running = list(self._running.values())
        for state in self._branches:
            state.finish_reason = state.finish_reason or "cancelled"
        self._finish()
        await self._multiplexer.ended(running)

    def abandon(self) -> None:
        """End the call: nobody can read it any more. May be called by any thread."""
        if not self._is_over:
            # A loop that was closed has ended it already.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._finish)

    async def next_token(self) -> Token | None:
        """Return the next token of any branch; None after the last. Raises as a Stream does."""
        token = await self._tokens.get()
        if token is None:
            self._tokens.put_nowait(None)
            if self._error is not None:
                raise self._error
        return token

    async def _start(self, make_plan: Callable[[], Awaitable[Plan]]) -> None:
        """Find out what to send, and send it."""
        try:
            self._send(await make_plan())
        except CogsmithError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(ClientError("the client was closed"))
            raise
        except Exception as fault:
            bug = InternalError(f"preparing a call failed: {fault!r}")
            bug.__cause__ = fault
            self._fail(bug)

    def _send(self, plan: Plan) -> None:
        self._branches = [_begun(leg.operation) for leg in plan.legs for _ in leg.indices]
        self._watches = plan.watches
        self.prompt = plan.legs[0].operation.prompt
        for leg in plan.legs:
            self._submit(leg)

    def _submit(self, leg: Leg) -> None:
        operation = leg.operation
        if self._deadline is not None and isinstance(operation, ExtendedGenerate | ExtendedScore):
            left = max(1, int((self._deadline - time.monotonic()) * 1000))
            operation = msgspec.structs.replace(operation, deadline_ms=left)
        self._running[leg] = self._multiplexer.submit(operation, partial(self._receive, leg))

    def _receive(self, leg: Leg, item: AnyReply | CogsmithError) -> None:
        """Take what a leg gives, as it comes."""
        if leg not in self._running:
            return
        try:
            self._take(leg, item)
        except CogsmithError as error:
            self._fail(error)
        if all(state.finish_reason for state in self._branches):
            self._finish()

    def _take(self, leg: Leg, item: AnyReply | CogsmithError) -> None:
        match item:
            case lmtp.Token() | ExtendedToken():
                self._take_token(leg, item)
            case End(finish_reason="interrupted"):
                self._go_on(leg, StreamBroken(item.error or "the server was interrupted"))
            case End(finish_reason="error"):
                self._go_on(leg, OperationFailed(item.error or "the server ended the stream without a reason"))
            case End():
                self._take_end(leg, item)
            case StreamBroken() | OperationFailed():
                self._go_on(leg, item)
            case CogsmithError():
                raise item

    def _take_token(self, leg: Leg, reply: lmtp.Token | ExtendedToken) -> None:
        branch = reply.index if isinstance(reply, ExtendedToken) else 0
        index = leg.indices[branch]
        state = self._branches[index]
        state.stop = self._watches[index].push(reply.token) if self._watches else None
        reason = reply.finish_reason if state.stop is None else "stop_sequence"
        # LMQL's own server gives the last token twice, and only the second time a reason.
        if reason is None and isinstance(reply, lmtp.Token) and len(state.tokens) + 1 == state.max_tokens:
            reason = "length"
        token = Token(
            token=reply.token,
            logprob=reply.logprob,
            index=index,
            finish_reason=reason,
            top_logprobs=reply.top_logprobs,
            logprobs=reply.logprobs if isinstance(reply, ExtendedToken) else None,
        )
        leg.received[branch].append(token.token)
        state.tokens.append(token)
        self._tokens.put_nowait(token)
        if token.finish_reason is not None:
            leg.finished.add(branch)
            # Of LMTP 1.1, an END is still to come, which knows more.
            if not leg.is_extended:
                state.finish_reason = token.finish_reason
                self._multiplexer.cancel(self._running.pop(leg))

    def _take_end(self, leg: Leg, end: End) -> None:
        """Note the end of one branch or all. Raises DeadlineExceeded."""
        if end.finish_reason == "deadline":
            raise self._late()
        self.timing = end.timing or self.timing
        for branch in range(len(leg.indices)) if end.index is None else [end.index]:
            state = self._branches[leg.indices[branch]]
            state.finish_reason = state.finish_reason or end.finish_reason
            state.stop = end.stop
            leg.finished.add(branch)

    def _go_on(self, leg: Leg, error: StreamBroken | OperationFailed) -> None:
        """Continue in a new prediction what was cut. Raises the error where that cannot be done."""
        for branch in leg.finished:
            state = self._branches[leg.indices[branch]]
            state.finish_reason = state.finish_reason or state.tokens[-1].finish_reason
        # What is wrong with an operation shows before its first token; later, it is the server that failed.
        is_cut = isinstance(error, StreamBroken) or any(leg.received)
        legs = rest(leg) if is_cut and leg.attempt < self._max_recoveries else None
        if legs is None:
            raise self._broken(error)
        self._multiplexer.cancel(self._running.pop(leg))
        for one in legs:
            self._submit(one)

    def _finish(self) -> None:
        """Nothing comes any more. Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        self._started.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for running in self._running.values():
            self._multiplexer.cancel(running)
        self._running.clear()
        self._tokens.put_nowait(None)

    def _fail(self, error: CogsmithError) -> None:
        """End with an error, once what has come was taken. The first one counts."""
        if not self._is_over:
            self._error = error
            self._finish()

    def _broken(self, error: StreamBroken | OperationFailed) -> ClientError:
        if isinstance(error, OperationFailed):
            return error
        came = self.usage.tokens
        return StreamBroken(f"{error.message}; {came} tokens had come", fix=error.fix, num_tokens=came)

    def _late(self) -> DeadlineExceeded:
        if self._seconds is None:
            return DeadlineExceeded("the server's own time limit has passed", fix="ask for fewer tokens")
        return DeadlineExceeded(f"the call has had its {self._seconds:g} seconds", fix="give a longer deadline")


def _begun(operation: Call) -> _State:
    """Return a branch of `operation` of which nothing has come."""
    return _State(len(operation.prompt), operation.max_tokens if isinstance(operation, Generate) else None)
