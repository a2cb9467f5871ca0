"""One prediction: what was asked, and everything that has happened to it, in order.

What happened is one append-only list of events. Output and logs are read from it, any number of readers follow it from
any place, and writing to it costs the same however many there are.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from cogsmith.gateway.asked import last_words

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
Ending = Literal["succeeded", "failed", "canceled", "aborted"]
EventName = Literal["output", "logs", "error", "done"]
Change = Literal["start", "output", "logs", "completed"]

# What an event takes in memory beside its text, roughly.
_EVENT_BYTES = 300


class StreamEvent(NamedTuple):
    """One event of a prediction's stream. `id` is "MILLISECONDS:NUMBER", as Replicate's are."""

    id: str
    event: EventName
    data: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who wants to be told of which changes. The URLs in what is sent begin with `base_url`."""

    url: str
    changes: frozenset[Change]
    base_url: str


@dataclass(eq=False, slots=True)
class Prediction:
    """A prediction and its history. Once it has ended nothing changes any more: later writes are dropped.

    `notify` is called at each change, after it; `number` counts the gateway's predictions; `size` is roughly what this
    one takes in memory, in bytes.
    """

    number: int
    model_ref: str
    version: str
    input: dict[str, Any]
    size: int
    notify: Callable[[Prediction, Change], None]
    deployment: str | None = None
    webhook: Webhook | None = None
    deadline: datetime | None = None
    id: str = field(default_factory=lambda: base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower())
    stream_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    completed_at: datetime | None = None
    status: Status = "starting"
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    events: list[StreamEvent] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, of whatever kind."""
        return self._ended.is_set()

    @property
    def output(self) -> list[str]:
        """The chunks so far."""
        return [event.data for event in self.events if event.event == "output"]

    @property
    def logs(self) -> str:
        """The log so far."""
        return "".join(event.data for event in self.events if event.event == "logs")

    @property
    def has_output(self) -> bool:
        """Whether there is any output. It comes after the first logs, if not at once."""
        return any(event.event == "output" for event in self.events)

    def begin(self) -> None:
        """The model has begun to work on it."""
        if not self.ended and self.status == "starting":
            self.status = "processing"
            self.started_at = datetime.now(UTC)
            self.notify(self, "start")

    def write(self, chunk: str) -> None:
        """Append a chunk of output."""
        if not self.ended:
            self._append("output", chunk)
            self.notify(self, "output")

    def log(self, text: str) -> None:
        """Append to the log."""
        if not self.ended:
            self._append("logs", text)
            self.notify(self, "logs")

    def requeue(self) -> None:
        """The server that worked on it is gone, and nobody has seen any output: it starts anew."""
        if not self.ended:
            self.status = "starting"
            self.started_at = None

    def explain(self, reason: str) -> None:
        """Tell a client of LMTP 1.0, in its own words, why it gets nothing, if it has got nothing. The end is near."""
        if not self.has_output and (words := last_words(self.input.get("ops_batch_json"), reason)):
            self.write(words)

    def end(self, status: Ending, *, error: str | None = None, metrics: dict[str, Any] | None = None) -> None:
        """It is over. `metrics` is what the model counted; the times are added to it (seconds)."""
        if self.ended:
            return
        self.status = status
        self.error = error
        self.completed_at = datetime.now(UTC)
        self.metrics = self._times(self.completed_at) | (metrics or {})
        if error is not None:
            self._append("error", json.dumps({"detail": error}))
        self._append("done", json.dumps(_DONE[status]))
        self._ended.set()
        self.notify(self, "completed")

    async def follow(self, position: int = 0) -> AsyncIterator[StreamEvent]:
        """Yield the events from `position` on as they come, until the end."""
        while True:
            changed = self._changed
            while position < len(self.events):
                yield self.events[position]
                position += 1
            if self.ended:
                return
            await changed.wait()

    async def chunks_from(self, number: int = 0) -> AsyncIterator[str]:
        """Yield the output's chunks from that `number` on as they come, until the end."""
        seen = 0
        async for event in self.follow():
            if event.event == "output":
                seen += 1
                if seen > number:
                    yield event.data

    async def wait(self) -> None:
        """Wait for its end."""
        await self._ended.wait()

    def position_after(self, event_id: str) -> int:
        """Where a reader goes on that has seen everything up to the event of this id; 0 for an id of no event."""
        number = event_id.rpartition(":")[2]
        if not (number.isascii() and number.isdigit()):
            return 0
        position = int(number)
        known = position < len(self.events) and self.events[position].id == event_id
        return position + 1 if known else 0

    def _append(self, name: EventName, data: str) -> None:
        now = datetime.now(UTC)
        self.events.append(StreamEvent(f"{int(now.timestamp() * 1000)}:{len(self.events)}", name, data))
        self.size += len(data) + _EVENT_BYTES
        self._changed.set()
        self._changed = asyncio.Event()

    def _times(self, completed_at: datetime) -> dict[str, Any]:
        times = {"total_time": (completed_at - self.created_at).total_seconds()}
        if self.started_at is not None:
            times["predict_time"] = (completed_at - self.started_at).total_seconds()
        return times


# The data of the last event, by how it ended.
_DONE: dict[Ending, dict[str, str]] = {
    "succeeded": {},
    "failed": {"reason": "error"},
    "canceled": {"reason": "canceled"},
    "aborted": {"reason": "canceled"},
}
