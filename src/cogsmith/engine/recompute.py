"""The row back-end of last resort: no cache, every step runs the whole text again. Slow, and right by definition."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from cogsmith.engine.forward import Forward
from cogsmith.engine.runner import RowChunk


class RecomputeRunner:
    """For architectures whose state cannot be continued from the middle of a prompt."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._rows = itertools.count()
        self._texts: dict[int, list[int]] = {}

    def open_row(self) -> int:
        """Return a new, empty row."""
        row = next(self._rows)
        self._texts[row] = []
        return row

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]`, chunk by chunk."""
        return torch.cat([self._run(chunk) for chunk in chunks])

    def close_row(self, row: int) -> None:
        """Forget a row's text."""
        del self._texts[row]

    def _run(self, chunk: RowChunk) -> torch.Tensor:
        text = self._texts[chunk.row]
        text.extend(chunk.tokens)
        return self._forward(torch.tensor([text], device=self._forward.device), num_wanted=chunk.num_wanted)[0]
