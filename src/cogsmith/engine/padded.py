"""The row back-end that decodes all rows in one forward pass, padded on the left to the longest.

A prompt is computed alone, in a cache of its own; with its first decoded token the row joins the batch. Rows enter
and leave between steps: joining pads the shorter side on the left, leaving selects the remaining rows and drops
columns that no row uses any more. Padding is masked and positions are counted without it, so a row's logits do not
depend on its neighbours (beyond floating-point noise); the engine verifies that at start-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from cogsmith.engine.forward import Forward, NewCache
from cogsmith.engine.runner import RowChunk
from cogsmith.engine.solo import SoloRunner


class PaddedRunner:
    """Decodes in one batch; needs caches that hold plain keys and values `[rows, heads, length, head_dim]`."""

    def __init__(self, forward: Forward, new_cache: NewCache) -> None:
        self._forward = forward
        self._prompts = _Prompts(forward, new_cache)
        self._batch = _Batch()

    def open_row(self) -> int:
        """Return a new, empty row."""
        return self._prompts.open_row()

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]`, chunk by chunk."""
        decoding = [chunk for chunk in chunks if len(chunk.tokens) == 1 and chunk.start > 0]
        for chunk in decoding:
            if chunk.row not in self._batch.lengths:
                self._batch.join(chunk.row, self._prompts.take(chunk.row), chunk.start)
        decoded = self._decode({chunk.row: chunk.tokens[0] for chunk in decoding}) if decoding else {}
        return torch.cat([self._logits(chunk, decoded) for chunk in chunks])

    def close_row(self, row: int) -> None:
        """Free a row's cache."""
        if row in self._batch.lengths:
            self._batch.leave(row)
        else:
            self._prompts.close_row(row)

    def _logits(self, chunk: RowChunk, decoded: dict[int, torch.Tensor]) -> torch.Tensor:
        if chunk.row in decoded:
            return decoded[chunk.row][: chunk.num_wanted]
        return self._prompts.forward([chunk])

    def _decode(self, tokens: dict[int, int]) -> dict[int, torch.Tensor]:
        batch, device = self._batch, self._forward.device
        input_ids = torch.tensor([[tokens[row]] for row in batch.lengths], device=device)
        lengths = torch.tensor(list(batch.lengths.values()), device=device)[:, None]
        columns = torch.arange(batch.width + 1, device=device)
        attention_mask = (columns >= batch.width - lengths).long()
        logits = self._forward(input_ids, batch.cache, attention_mask=attention_mask, position_ids=lengths)
        batch.grow()
        return dict(zip(batch.lengths, logits, strict=True))


class _Prompts(SoloRunner):
    """Rows that still compute their prompt, each in a cache of its own."""

    def take(self, row: int) -> Any:
        """Give away the cache of a row whose prompt is complete."""
        return self._caches.pop(row)


class _Batch:
    """The joint cache of all decoding rows, with each row's length in it."""

    def __init__(self) -> None:
        self.cache: Any = None
        self.lengths: dict[int, int] = {}

    @property
    def width(self) -> int:
        """Columns of the cache: the longest row's length."""
        return max(self.lengths.values(), default=0)

    def join(self, row: int, cache: Any, length: int) -> None:
        """Add a row of `length` tokens with a cache of its own."""
        if self.lengths:
            width = max(self.width, length)
            for mine, theirs in zip(self.cache.layers, cache.layers, strict=True):
                _merge_layer(mine, theirs, width)
        else:
            self.cache = cache
        self.lengths[row] = length

    def leave(self, row: int) -> None:
        """Drop a row, and the columns that only it used."""
        index = list(self.lengths).index(row)
        width_before = self.width
        del self.lengths[row]
        if not self.lengths:
            self.cache = None
            return
        kept = torch.tensor([i for i in range(len(self.lengths) + 1) if i != index])
        self.cache.reorder_cache(kept)
        self._drop_columns(width_before - self.width)

    def grow(self) -> None:
        """Count the token that every row has just got."""
        self.lengths = {row: length + 1 for row, length in self.lengths.items()}

    def _drop_columns(self, count: int) -> None:
        for layer in self.cache.layers if count else ():
            if _holds_keys(layer):
                layer.keys, layer.values = layer.keys[..., count:, :], layer.values[..., count:, :]


def _holds_keys(layer: Any) -> bool:
    """Some layers share another layer's keys and hold none of their own."""
    return layer.keys is not None and layer.keys.numel() > 0


def _merge_layer(mine: Any, theirs: Any, width: int) -> None:
    if _holds_keys(mine):
        mine.keys = torch.cat([_pad_left(mine.keys, width), _pad_left(theirs.keys, width)])
        mine.values = torch.cat([_pad_left(mine.values, width), _pad_left(theirs.values, width)])


def _pad_left(states: torch.Tensor, width: int) -> torch.Tensor:
    """Pad `[rows, heads, length, head_dim]` with zeros to `width` tokens, on the left."""
    return pad(states, (0, 0, width - states.shape[-2], 0))
