"""Rows of a model that computes long texts otherwise than short ones, as `longrope` does from a certain length on.

Such a model turns all of a text's keys by other angles once it is longer than the border, and decides so for a whole
forward pass by the longest row in it. So rows on either side never share a pass, and a row that crosses the border is
computed anew, once. Each token's logits are then those of a plain pass over the text up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cogsmith.engine.rows.runner import OwnCaches, RowChunk, Runner


class RegimesRunner(OwnCaches):
    """Two runners: one for texts of at most `border` tokens, one for longer ones. Neither may share pages."""

    def __init__(self, new_runner: Callable[[], Runner], border: int) -> None:
        self._short, self._long = new_runner(), new_runner()
        self._border = border
        self._texts: dict[int, list[int]] = {}

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]`, chunk by chunk."""
        parts: dict[int, list[torch.Tensor]] = {chunk.row: [] for chunk in chunks}
        _run(self._short, [self._below(chunk) for chunk in chunks], parts)
        _run(self._long, [self._beyond(chunk) for chunk in chunks], parts)
        return torch.cat([part for chunk in chunks for part in parts[chunk.row]])

    def close_row(self, row: int) -> None:
        """Forget a row, which may never have had a chunk."""
        self._texts.pop(row, None)
        self._short.close_row(row)
        self._long.close_row(row)

    def _below(self, chunk: RowChunk) -> RowChunk | None:
        """The part of `chunk` up to the border; None where there is none, or nobody wants it before it is redone."""
        if chunk.start >= self._border:
            return None
        tokens = chunk.tokens[: self._border - chunk.start]
        beyond = len(chunk.tokens) - len(tokens)
        num_wanted = max(0, chunk.num_wanted - beyond)
        self._texts[chunk.row] = [*(self._texts[chunk.row] if chunk.start else ()), *tokens]
        return None if beyond and not num_wanted else RowChunk(chunk.row, chunk.start, tokens, num_wanted)

    def _beyond(self, chunk: RowChunk) -> RowChunk | None:
        """The part of `chunk` past the border; with all that came before, for a row that crosses it now."""
        end = chunk.start + len(chunk.tokens)
        if end <= self._border:
            return None
        num_wanted = min(chunk.num_wanted, end - self._border)
        text = self._texts.pop(chunk.row, None)
        if text is None:
            return RowChunk(chunk.row, chunk.start, chunk.tokens, num_wanted)
        self._short.close_row(chunk.row)
        return RowChunk(chunk.row, 0, [*text, *chunk.tokens[max(0, self._border - chunk.start) :]], num_wanted)


def _run(runner: Runner, chunks: Sequence[RowChunk | None], parts: dict[int, list[torch.Tensor]]) -> None:
    """Run what is there of `chunks`, and add each row's logits to its `parts`."""
    present = [chunk for chunk in chunks if chunk is not None]
    if present:
        logits = torch.split(runner.forward(present), [chunk.num_wanted for chunk in present])
        for chunk, part in zip(present, logits, strict=True):
            parts[chunk.row].append(part)
