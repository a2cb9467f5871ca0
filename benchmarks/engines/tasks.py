"""What an engine is asked to do in one measurement, and what came of it. Plain values that travel as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(slots=True)
class Stream:
    """One stream: a call over `prompt`, then one for each of `more`.

    Each later call's prompt is the one before it, its answer, and the ids of `more`. `bias` (id to number, with ids
    as strings as JSON has them) is added to the logits of every call.
    """

    prompt: list[int]
    more: list[list[int]] = dataclasses.field(default_factory=list)
    bias: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Generate:
    """Run the streams side by side; every call makes `max_tokens`, whatever they are, and lists `top_logprobs`."""

    streams: list[Stream]
    max_tokens: int
    top_logprobs: int = 0


@dataclasses.dataclass(slots=True)
class Score:
    """Give the log-probability of each token of each option after `prompt`."""

    prompt: list[int]
    options: list[list[int]]


Task = Generate | Score


@dataclasses.dataclass(slots=True)
class Measured:
    """What a task took. `first` and `later` are seconds from a call to its first token: first calls, and all others.

    `made` holds each stream's ids, over all its calls; `logprobs` each option's, for a Score.
    """

    seconds: float
    first: list[float] = dataclasses.field(default_factory=list)
    later: list[float] = dataclasses.field(default_factory=list)
    made: list[list[int]] = dataclasses.field(default_factory=list)
    logprobs: list[list[float]] = dataclasses.field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many tokens were made in all."""
        return sum(map(len, self.made))


def to_json(task: Task) -> str:
    """Return one line that `from_json` reads."""
    return json.dumps({"kind": type(task).__name__, **dataclasses.asdict(task)})


def from_json(line: str) -> Task:
    """Read what `to_json` wrote."""
    fields: dict[str, Any] = json.loads(line)
    if fields.pop("kind") == "Score":
        return Score(**fields)
    streams = [Stream(**stream) for stream in fields.pop("streams")]
    return Generate(streams, **fields)
