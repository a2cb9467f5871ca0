"""A stream that follows a grammar: what may come next in it, and what must."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.grammars import Grammar, Grammars, State
from cogsmith.engine.request import Event, FailedEvent, GenerateRequest, TokenEvent
from cogsmith.engine.sequence import Sequence
from cogsmith.errors import RequestError

IMPOSSIBLE = FailedEvent("mask and constraint leave no token that could come next (fix: widen the mask `allow`)")


class Matcher:
    """A stream's place in its grammar. The engine's thread uses it, once it is made."""

    def __init__(self, grammar: Grammar, allow: bytes | None, room: int) -> None:
        self._grammar = grammar
        self._id = grammar.start(allow, room)
        self._state = grammar.state(self._id)
        weakref.finalize(self, grammar.leave, self._id)

    @property
    def state(self) -> State:
        """Where the stream stands."""
        return self._state

    def allowed(self) -> np.ndarray:
        """The ids that may come next, uint8 `[ceil(vocab_size / 8)]`: id i is bit i % 8 of byte i // 8."""
        return self._state.allowed

    def accept(self, token: int, room: int) -> None:
        """Tell of the token that was sampled, at most `room` to follow. `settle` waits for what that means."""
        self._grammar.accept(self._id, token, room)

    def settle(self) -> State:
        """Wait for the state after the token."""
        self._state = self._grammar.state(self._id)
        return self._state


def start(request: GenerateRequest, grammars: Grammars, info: EngineInfo) -> Matcher | None:
    """Return what a request's constraint becomes; None without one. May take seconds, and runs on any thread.

    Raises RequestError for a constraint that cannot be used.
    """
    if request.constraint is None:
        return None
    matcher = Matcher(grammars.get(request.constraint), request.allow, _room(request, info, 0))
    state = matcher.state
    kind = request.constraint.kind
    if state.error is not None:
        raise RequestError(f"constraint.{kind} cannot be used: {state.error}", fix="make it simpler")
    if not state.forced and not state.allowed.any():
        raise RequestError(f"constraint.{kind} and allow leave no token that could come first", fix="widen one of them")
    return matcher


def accept(sequence: Sequence, info: EngineInfo) -> None:
    """Tell the sequence's constraint, where it has one, of the token that was appended last."""
    if isinstance(sequence.constraint, Matcher) and isinstance(sequence.request, GenerateRequest):
        room = _room(sequence.request, info, sequence.num_generated)
        sequence.constraint.accept(sequence.tokens[-1], room)


def forced_events(sequence: Sequence, info: EngineInfo) -> Iterator[Event]:
    """Append the tokens that the constraint forces now, and yield their events.

    They have probability 1. A grammar that is complete ends the stream where no end token can.
    """
    state = sequence.constraint.state
    for position, token in enumerate(state.forced, start=1):
        sequence.append(token)
        reason = sequence.finish_reason(token, info.eos_ids, info.max_context)
        if state.complete and position == len(state.forced):
            reason = reason or "stop"
        yield _certain(sequence, TokenEvent(token, 0.0, {token: 0.0}, reason))
        if reason is not None:
            return
    if state.error is not None:
        yield FailedEvent(state.error)


def with_forced(sequence: Sequence, event: Event, info: EngineInfo) -> Iterator[Event]:
    """Yield the event of a sampled token, which `accept` was told of, and those of the tokens that it forces."""
    if not (isinstance(sequence.constraint, Matcher) and isinstance(event, TokenEvent)) or event.finish_reason:
        yield event
        return
    state = sequence.constraint.settle()
    ends = state.complete and not state.forced
    yield replace(event, finish_reason="stop") if ends else event
    if not ends:
        yield from forced_events(sequence, info)


def _certain(sequence: Sequence, event: TokenEvent) -> TokenEvent:
    """Add what was asked of `logprob_ids`: all but the forced one have probability 0."""
    request = sequence.request
    if not isinstance(request, GenerateRequest) or not request.logprob_ids:
        return event
    return replace(event, logprobs={event.token: 0.0} if event.token in request.logprob_ids else {})


def _room(request: GenerateRequest, info: EngineInfo, num_generated: int) -> int:
    return min(request.max_tokens, info.max_context - len(request.prompt)) - num_generated
