"""The rows of the table: which task each repetition runs, and which figures come of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.prompts import Prompts
from engines.tasks import Generate, Measured, Score, Stream, Task

_LONG_PROMPT = 512
_SCORED_PROMPT = 500
_SHORT_PROMPT = 32
_NEW_TOKENS = 64
_CALL_TOKENS = 16
"""What LMQL asks for at a time, its `chunksize`."""
_BETWEEN_CALLS = 4
_ALTERNATIVES = 20
_OPTIONS = 20


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of the table, of one repetition."""

    label: str
    of: Callable[[Measured], float]
    is_rate: bool = False
    """Whether more is better."""


@dataclass(frozen=True, slots=True)
class Row:
    """One task and its figures. `needs` is a key of `Kind.lacks`, or empty."""

    name: str
    make: Callable[[Prompts], Task]
    figures: tuple[Figure, ...]
    needs: str = ""

    def task(self, checkpoint: Path, repetition: int) -> Task:
        """Return what one repetition runs, on every engine alike; its prompts begin as no other's."""
        return self.make(Prompts(checkpoint, seed=f"{self.name} {repetition}"))


def _rate(what: str) -> Figure:
    return Figure(f"{what}: tokens/s", lambda measured: measured.tokens / measured.seconds, is_rate=True)


def _plain(prompts: Prompts) -> Task:
    return Generate([Stream(prompts.prompt(_SHORT_PROMPT))], _NEW_TOKENS)


def _masked(streams: int) -> Row:
    def make(prompts: Prompts) -> Task:
        masks = [prompts.mask(allow=index % 2 == 0) for index in range(streams)]
        return Generate(
            [Stream(prompts.prompt(_SHORT_PROMPT), bias=mask) for mask in masks], _NEW_TOKENS, _ALTERNATIVES
        )

    figure = _rate(f"{streams} streams, masks, top {_ALTERNATIVES}")
    return Row(f"masks{streams}", make, (figure,), needs="masks")


def _growing(streams: int, calls: int) -> Row:
    def make(prompts: Prompts) -> Task:
        shared = prompts.prompt(_LONG_PROMPT - _BETWEEN_CALLS)
        return Generate(
            [
                Stream(
                    shared + prompts.text(_BETWEEN_CALLS),
                    more=[prompts.text(_BETWEEN_CALLS) for _ in range(calls - 1)],
                )
                for _ in range(streams)
            ],
            _CALL_TOKENS,
        )

    what = f"growing prompt, {streams} stream{'s' if streams > 1 else ''}"
    later = Figure(f"{what}: first token of later calls, ms", lambda measured: 1000 * statistics.median(measured.later))
    return Row(f"growing{streams}", make, (later, _rate(what)))


def _scored(prompts: Prompts) -> Task:
    return Score(prompts.prompt(_SCORED_PROMPT), prompts.options(_OPTIONS))


def _cold(prompts: Prompts) -> Task:
    return Generate([Stream(prompts.prompt(_LONG_PROMPT))], 1)


def warm_up(prompts: Prompts) -> list[tuple[str, Task]]:
    """Return small tasks of every kind, with what they need, for what engines compile or allocate at first use."""
    streams = [Stream(prompts.prompt(_SHORT_PROMPT)) for _ in range(2)]
    masked = [Stream(prompts.prompt(_SHORT_PROMPT), bias=prompts.mask(allow=True)) for _ in range(2)]
    return [
        ("", Generate(streams, 4)),
        ("masks", Generate(masked, 4, _ALTERNATIVES)),
        ("score", Score(prompts.prompt(_SHORT_PROMPT), prompts.options(2))),
    ]


PLAIN = Row("one", _plain, (_rate("one stream"),))
SCORED = Row(
    "score",
    _scored,
    (Figure(f"{_OPTIONS} options over {_SCORED_PROMPT} tokens: all scores, ms", lambda m: 1000 * m.seconds),),
    needs="score",
)

ROWS = (
    PLAIN,
    _masked(8),
    _masked(16),
    _growing(1, calls=4),
    _growing(4, calls=4),
    _growing(16, calls=3),
    SCORED,
    Row("cold", _cold, (Figure(f"cold first token after {_LONG_PROMPT} tokens, ms", lambda m: 1000 * m.first[0]),)),
)
