"""Samples of all repetitions -> a Markdown table of medians, with each engine's as a multiple of ours."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engines.peers import KINDS, OURS
from engines.rows import Figure

MISSING = "—"


@dataclass(slots=True)
class Results:
    """All that was measured. Keys: a figure's label, then an engine's name."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    """Why there are no samples."""

    def add(self, figure: Figure, name: str, value: float) -> None:
        """Take one repetition's number."""
        self.samples.setdefault(figure.label, {}).setdefault(name, []).append(value)

    def lack(self, figure: Figure, name: str, reason: str) -> None:
        """Note why an engine has no number here."""
        self.missing.setdefault(figure.label, {})[name] = reason

    def median(self, figure: Figure, name: str) -> float | None:
        """Return the median of what an engine reached; None where it has nothing, or failed in some repetition."""
        values = self.samples.get(figure.label, {}).get(name)
        if not values or name in self.missing.get(figure.label, {}):
            return None
        return statistics.median(values)


def markdown(results: Results, figures: Sequence[Figure], names: Sequence[str]) -> str:
    """Return the table, and under it why numbers are missing and how each engine was run."""
    notes: list[str] = []
    head = ["", *(KINDS[name].title for name in names)]
    lines = [_line(head), _line(["---"] * len(head))]
    for figure in figures:
        cells = [_cell(results, figure, name, notes) for name in names]
        lines.append(_line([figure.label, *cells]))
    lines += ["", "In brackets: how many times better than this engine; below 1 is worse than it. " + _spread(results)]
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))] if notes else []
    lines += ["", *(f"- {KINDS[name].title}: {KINDS[name].note}." for name in names if KINDS[name].note)]
    return "\n".join(lines) + "\n"


def _cell(results: Results, figure: Figure, name: str, notes: list[str]) -> str:
    value = results.median(figure, name)
    if value is None:
        reason = results.missing.get(figure.label, {}).get(name)
        return "" if reason is None else f"{MISSING} [{_number_of(reason, notes)}]"
    ours = results.median(figure, OURS)
    if name == OURS or not ours or not value:
        return _number(value)
    return f"{_number(value)} ({_number(value / ours if figure.is_rate else ours / value)})"


def _number_of(note: str, notes: list[str]) -> int:
    """Return a note's number, counted from 1; it is added where it is new."""
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1


def _number(value: float) -> str:
    """Three digits are all that the measurement carries."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(results: Results) -> str:
    """Say how far repetitions lay apart."""
    spreads = list(_spreads(results.samples))
    if not spreads:
        return ""
    widest, where = max(spreads)
    middle = statistics.median(spread for spread, _ in spreads)
    return (
        f"Each number is a median; of a cell's repetitions the largest is {middle:.2f} times the smallest "
        f"in the median cell, {widest:.2f} times in the widest ({where})."
    )


def _spreads(samples: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterable[tuple[float, str]]:
    for label, engines in samples.items():
        for name, values in engines.items():
            if len(values) > 1 and min(values) > 0:
                yield max(values) / min(values), f"{label}, {KINDS[name].title}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
