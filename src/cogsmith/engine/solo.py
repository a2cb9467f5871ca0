"""The row back-end that is right for every architecture with a cache: each row runs alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from cogsmith.engine.forward import Forward, NewCache
from cogsmith.engine.runner import RowChunk


class SoloRunner:
    """Runs one row after the other. Slow with many rows, and never wrong about padding."""

    def __init__(self, forward: Forward, new_cache: NewCache) -> None:
        self._forward = forward
        self._new_cache = new_cache
        self._rows = itertools.count()
        self._caches: dict[int, Any] = {}

    def open_row(self) -> int:
        """Return a new, empty row."""
        row = next(self._rows)
        self._caches[row] = self._new_cache()
        return row

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]`, chunk by chunk."""
        return torch.cat([self._run(chunk) for chunk in chunks])

    def close_row(self, row: int) -> None:
        """Free a row's cache."""
        del self._caches[row]

    def _run(self, chunk: RowChunk) -> torch.Tensor:
        device = self._forward.device
        ids = torch.tensor([list(chunk.tokens)], device=device)
        positions = torch.arange(chunk.start, chunk.start + len(chunk.tokens), device=device)[None]
        cache = self._caches[chunk.row]
        return self._forward(ids, cache, num_wanted=chunk.num_wanted, position_ids=positions)[0]
