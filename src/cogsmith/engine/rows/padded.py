"""The row back-end that decodes all rows in one forward pass, padded on the left to the longest.

Several tokens of one row, a prompt's or forced ones, are computed alone, in a cache of the row's own; with a single
token it joins the batch. Padding is masked and positions are counted without it, so a row's logits do not depend on
its neighbours (beyond floating-point noise); the engine verifies that at start-up. A step of the batch brings one real
token for each of its rows, so no padding enters a recurrent state either, where there is one beside or instead of keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cogsmith.engine.rows.batch import Batch
from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.runner import Layers, OwnCaches, RowChunk
from cogsmith.engine.rows.solo import SoloRunner


class PaddedRunner(OwnCaches):
    """Decodes in one batch. `alone` runs the rest, with caches that can be merged: see `whole_cache`."""

    def __init__(self, forward: Forward, alone: SoloRunner) -> None:
        self._forward = forward
        self._alone = alone
        self._batch = Batch()

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]`, chunk by chunk."""
        for chunk in chunks:
            self._alone.begin_with(chunk)
        single = {chunk.row: chunk for chunk in chunks if len(chunk.tokens) == 1 and self._goes_on(chunk)}
        # A row that gets no token, or several, cannot stay: each column of the batch is a token of every row.
        for row in [row for row in self._batch.lengths if row not in single]:
            self._leave_batch(row)
        for row, chunk in single.items():
            if row not in self._batch.lengths:
                self._batch.join(row, self._alone.caches.pop(row), chunk.start)
        decoded = self._decode(single) if single else {}
        return torch.cat([decoded[c.row] if c.row in decoded else self._alone.forward([c]) for c in chunks])

    def layers_of(self, row: int, pages: Sequence[int], num_tokens: int) -> Layers:
        """Return a row's keys and values so far, on the host."""
        if row in self._batch.lengths:
            self._leave_batch(row)
        return self._alone.layers_of(row, pages, num_tokens)

    def close_row(self, row: int) -> None:
        """Forget a row, which may never have had a chunk."""
        if row in self._batch.lengths:
            self._batch.leave(row)
        self._alone.close_row(row)

    def _leave_batch(self, row: int) -> None:
        self._alone.caches[row] = self._batch.take(row)

    def _goes_on(self, chunk: RowChunk) -> bool:
        return chunk.start > 0 and (chunk.row in self._batch.lengths or chunk.row in self._alone.caches)

    def _decode(self, single: dict[int, RowChunk]) -> dict[int, torch.Tensor]:
        batch, device = self._batch, self._forward.device
        input_ids = torch.tensor([single[row].tokens for row in batch.lengths], device=device)
        lengths = torch.tensor(list(batch.lengths.values()), device=device)[:, None]
        mask = batch.mask(lengths) if batch.holds_keys else None
        lags = torch.tensor([self._alone.behind(row).lag for row in batch.lengths], device=device)[:, None]
        logits = self._forward(input_ids, batch.cache, attention_mask=mask, position_ids=lengths + lags)
        batch.grow()
        return {row: part[: single[row].num_wanted] for row, part in zip(batch.lengths, logits, strict=True)}
