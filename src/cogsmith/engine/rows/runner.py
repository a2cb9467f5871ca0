"""The model's side of a step: token chunks in, logits out. What a row back-end must offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from cogsmith.engine.kv.memory import PageChange
from cogsmith.engine.request import Media

Layers = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of a row by layer, each `[heads, tokens, dim]`."""


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """The beginning of a row's text that is computed in one pass: its first `num_tokens` tokens, with `media`."""

    num_tokens: int
    media: Media


@dataclass(frozen=True, slots=True)
class RowChunk:
    """New tokens of one row: they follow the `start` tokens whose keys and values are there already.

    The logits after each of the last `num_wanted` tokens are returned. A row begins with its first chunk. `pages` are
    the row's in order, with room for these tokens too; only a back-end that shares beginnings looks at them. Of a row
    with images, every chunk has the `prompt`. A row whose beginning is given starts with a chunk that has it, `given`,
    as keys and values of the `start` tokens before, or of more.
    """

    row: int
    start: int
    tokens: Sequence[int]
    num_wanted: int
    pages: Sequence[int] = ()
    prompt: ImagePrompt | None = None
    given: Layers | None = None


class Runner(Protocol):
    """Runs chunks of many rows and keeps their KV caches. Used by the engine's thread alone."""

    def change_pages(self, changes: Sequence[PageChange]) -> None:
        """Copy and clear pages, in order. Without effect where no pages are shared."""

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]` in the model's dtype, chunk by chunk."""

    def layers_of(self, row: int, pages: Sequence[int], num_tokens: int) -> Layers:
        """Return a row's keys and values so far, on the host. Of back-ends whose `Rows` have `shapes`."""

    def close_row(self, row: int) -> None:
        """Forget a row, which may never have had a chunk."""


class OwnCaches:
    """What a back-end inherits whose rows keep caches of their own."""

    def change_pages(self, changes: Sequence[PageChange]) -> None:
        """Nothing: pages are only counted here."""

    def layers_of(self, row: int, pages: Sequence[int], num_tokens: int) -> Layers:
        """Nothing can be given out, unless a back-end says how."""
        raise TypeError(f"{type(self).__name__} keeps no keys and values that could be given out")
