"""Runs a task on an engine and times it. The same code for every engine."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence

from engines.peers import Call, Peer
from engines.tasks import Generate, Measured, Score, Stream, Task

PATIENCE = 900.0
"""Seconds without the end of any call after which an engine counts as stuck."""


def run(peer: Peer, task: Task) -> Measured:
    """Run `task` to its end. Raises RuntimeError where the engine fails or makes another number of tokens."""
    return _score(peer, task) if isinstance(task, Score) else _generate(peer, task)


def _score(peer: Peer, task: Score) -> Measured:
    started = time.perf_counter()
    logprobs = peer.score(task.prompt, task.options)
    seconds = time.perf_counter() - started
    if list(map(len, logprobs)) != list(map(len, task.options)):
        raise RuntimeError("some scored tokens got no log-probability")
    return Measured(seconds, logprobs=logprobs)


def _generate(peer: Peer, task: Generate) -> Measured:
    ended: queue.SimpleQueue[_Running] = queue.SimpleQueue()
    streams = [_Running(stream, task, ended) for stream in task.streams]
    started = time.perf_counter()
    peer.start([stream.next_call() for stream in streams])
    running = len(streams)
    while running:
        resting = _ended(ended)
        going_on = [stream for stream in resting if stream.has_more]
        running -= len(resting) - len(going_on)
        if going_on:
            peer.start([stream.next_call() for stream in going_on])
    seconds = max(stream.last_token for stream in streams) - started
    return Measured(
        seconds,
        first=[stream.waits[0] for stream in streams],
        later=[wait for stream in streams for wait in stream.waits[1:]],
        made=[stream.made for stream in streams],
    )


def _ended(ended: queue.SimpleQueue[_Running]) -> Sequence[_Running]:
    """Wait for a call's end; return the streams of all calls that have ended by now."""
    try:
        streams = [ended.get(timeout=PATIENCE)]
    except queue.Empty:
        raise RuntimeError(f"no call ended within {PATIENCE:g} s") from None
    while not ended.empty():
        streams.append(ended.get())
    for stream in streams:
        stream.check()
    return streams


class _Running:
    """A stream and its times."""

    def __init__(self, stream: Stream, task: Generate, ended: queue.SimpleQueue[_Running]) -> None:
        self.made: list[int] = []
        self.waits: list[float] = []
        self.last_token = 0.0
        self._prompt = list(stream.prompt)
        self._more = list(stream.more)
        self._bias = {int(token): value for token, value in stream.bias.items()}
        self._task = task
        self._ended = ended
        self._answer: list[int] = []
        self._called = 0.0
        self._error: str | None = None

    @property
    def has_more(self) -> bool:
        return bool(self._more)

    def next_call(self) -> Call:
        if self._answer:
            self._prompt += [*self._answer, *self._more.pop(0)]
        self._answer = []
        self._called = time.perf_counter()
        task = self._task
        return Call(self._prompt, task.max_tokens, self._emit, self._fail, task.top_logprobs, self._bias)

    def check(self) -> None:
        """Raises RuntimeError unless the call gave what was asked."""
        if self._error is not None:
            raise RuntimeError(self._error)
        if len(self._answer) != self._task.max_tokens:
            raise RuntimeError(f"a call made {len(self._answer)} tokens of {self._task.max_tokens}")

    def _emit(self, ids: Sequence[int], is_last: bool) -> None:
        self.last_token = time.perf_counter()
        if ids and not self._answer:
            self.waits.append(self.last_token - self._called)
        self._answer += ids
        self.made += ids
        if is_last:
            self._ended.put(self)

    def _fail(self, error: str) -> None:
        self._error = error
        self._ended.put(self)
