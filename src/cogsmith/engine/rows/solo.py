"""The row back-ends that are right for every architecture with a cache: each row runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cogsmith.engine.rows.forward import Behind, Forward, NewCache
from cogsmith.engine.rows.runner import Layers, OwnCaches, RowChunk


class SoloRunner(OwnCaches):
    """Runs one row after the other. Slow with many rows, and never wrong about padding.

    `caches` are those of the rows that have been computed in part; whoever takes one out goes on with that row.
    """

    def __init__(self, forward: Forward, new_cache: NewCache) -> None:
        self._forward = forward
        self._new_cache = new_cache
        self.caches: dict[int, Any] = {}
        self._behind: dict[int, Behind] = {}

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]`, chunk by chunk."""
        for chunk in chunks:
            self.begin_with(chunk)
        return torch.cat([self._run(chunk) for chunk in chunks])

    def close_row(self, row: int) -> None:
        """Forget a row, which may never have had a chunk."""
        self.caches.pop(row, None)
        self._behind.pop(row, None)

    def behind(self, row: int) -> Behind:
        """Return what the images of a row's prompt left for its further tokens; nothing without images."""
        return self._behind.get(row, Behind())

    def begin_with(self, chunk: RowChunk) -> None:
        """Begin a new row with the keys and values that its chunk came with, if it did."""
        if chunk.given is not None and chunk.row not in self.caches:
            cache = self.caches[chunk.row] = self._new_cache()
            for index, parts in chunk.given.items():
                cache.update(*(part[None, :, : chunk.start].to(self._forward.device) for part in parts), index)

    def layers_of(self, row: int, pages: Sequence[int], num_tokens: int) -> Layers:
        """Return a row's keys and values so far, on the host."""
        return {
            index: (layer.keys[0, :, :num_tokens].cpu(), layer.values[0, :, :num_tokens].cpu())
            for index, layer in enumerate(self.caches[row].layers)
        }

    def _run(self, chunk: RowChunk) -> torch.Tensor:
        return self._pass(chunk)

    def _pass(self, chunk: RowChunk) -> torch.Tensor:
        device = self._forward.device
        ids = torch.tensor([list(chunk.tokens)], device=device)
        behind = self.behind(chunk.row)
        first = chunk.start + behind.lag
        positions = torch.arange(first, first + len(chunk.tokens), device=device)[None]
        if chunk.start == 0:
            self.caches[chunk.row] = self._new_cache()
        mask = behind.image_mask
        logits = self._forward(
            ids,
            self.caches[chunk.row],
            num_wanted=chunk.num_wanted,
            position_ids=positions,
            image_mask=None if mask is None else mask.expand(-1, len(chunk.tokens), -1, -1),
        )
        return logits[0]


class WholePromptRunner(SoloRunner):
    """For prompts with images, which no border of a chunk may cut.

    A prompt is held back until logits are wanted and then computed at once, so it may hold up the other rows. What
    follows it is computed without its images, as transformers' own way of generating does.
    """

    def __init__(self, forward: Forward, new_cache: NewCache) -> None:
        super().__init__(forward, new_cache)
        self._held: dict[int, list[int]] = {}

    def close_row(self, row: int) -> None:
        """Forget a row, which may never have had a chunk."""
        super().close_row(row)
        self._held.pop(row, None)

    def _run(self, chunk: RowChunk) -> torch.Tensor:
        held = [] if chunk.start == 0 else self._held.pop(chunk.row, None)
        if held is None:
            return self._go_on(chunk)
        text = [*held, *chunk.tokens]
        if not chunk.num_wanted:
            self._held[chunk.row] = text
            return torch.empty((0, self._forward.head_size), device=self._forward.device)
        return self._begin(RowChunk(chunk.row, 0, text, chunk.num_wanted, prompt=chunk.prompt))

    def _begin(self, chunk: RowChunk) -> torch.Tensor:
        """Compute a row's first tokens, its whole prompt at least."""
        prompt = chunk.prompt
        if prompt is None:
            return self._pass(chunk)
        tokens, rest = chunk.tokens[: prompt.num_tokens], chunk.tokens[prompt.num_tokens :]
        num_wanted = max(0, chunk.num_wanted - len(rest))
        cache = self.caches[chunk.row] = self._new_cache()
        ids = torch.tensor([list(tokens)], device=self._forward.device)
        logits, self._behind[chunk.row] = self._forward.with_media(ids, prompt.media, cache, num_wanted=num_wanted)
        if not rest:
            return logits[0]
        behind = RowChunk(chunk.row, len(tokens), rest, chunk.num_wanted - num_wanted)
        return torch.cat([logits[0], self._go_on(behind)])

    def _go_on(self, chunk: RowChunk) -> torch.Tensor:
        """Compute what follows a row's first tokens."""
        return self._pass(chunk)


class UnchunkedRunner(WholePromptRunner):
    """For a state that goes on by single tokens only, as Mamba's does: its scan of several begins with nothing.

    Prompts are computed at once, what follows token by token.
    """

    def _go_on(self, chunk: RowChunk) -> torch.Tensor:
        first_wanted = len(chunk.tokens) - chunk.num_wanted
        singles = [
            RowChunk(chunk.row, chunk.start + index, [token], int(index >= first_wanted))
            for index, token in enumerate(chunk.tokens)
        ]
        return torch.cat([self._pass(single) for single in singles])
