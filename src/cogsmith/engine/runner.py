"""The model's side of a step: token chunks in, logits out. What a row back-end must offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class RowChunk:
    """New tokens of one row: they follow the `start` tokens that its cache already holds.

    The logits after each of the last `num_wanted` tokens are returned. A single token behind others means that the row
    decodes: every later step brings one more for it, until the row is closed.
    """

    row: int
    start: int
    tokens: Sequence[int]
    num_wanted: int


class Runner(Protocol):
    """Runs chunks of many rows and keeps their KV caches. Used by the engine's thread alone."""

    def open_row(self) -> int:
        """Return a new, empty row."""

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]` in the model's dtype, chunk by chunk."""

    def close_row(self, row: int) -> None:
        """Free a row's cache."""
