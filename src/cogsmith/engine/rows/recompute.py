"""The row back-end of last resort: no cache, every step runs the whole text again. Slow, and right by definition."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.runner import OwnCaches, RowChunk


class RecomputeRunner(OwnCaches):
    """For architectures whose state cannot be continued from the middle of a prompt."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._texts: dict[int, list[int]] = {}

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]`, chunk by chunk."""
        return torch.cat([self._run(chunk) for chunk in chunks])

    def close_row(self, row: int) -> None:
        """Forget a row, which may never have had a chunk."""
        self._texts.pop(row, None)

    def _run(self, chunk: RowChunk) -> torch.Tensor:
        if chunk.start == 0:
            self._texts[chunk.row] = []
        text = self._texts[chunk.row]
        text.extend(chunk.tokens)
        return self._forward(torch.tensor([text], device=self._forward.device), num_wanted=chunk.num_wanted)[0]
