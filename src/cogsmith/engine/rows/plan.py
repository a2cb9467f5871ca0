"""Where the tokens of one packed step stand: all of them in one line, `[1, tokens]`, row after row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cogsmith.engine.rows.runner import RowChunk


class Plan:
    """One step. `input_ids` and `position_ids` are `[1, tokens]`, `slots` `[tokens]` where keys and values go.

    A slot is `page * page_size + place in the page`. `wanted` are the places of the tokens whose logits are asked for.
    For each row, as numpy arrays: `lengths` counts its new tokens, `starts` those before them, `offsets` is the place
    of its first one in the line.
    """

    def __init__(self, chunks: Sequence[RowChunk], page_size: int, device: torch.device) -> None:
        self.page_size = page_size
        self.device = device
        self.lengths = np.array([len(chunk.tokens) for chunk in chunks])
        self.starts = np.array([chunk.start for chunk in chunks])
        self.offsets = np.cumsum(self.lengths) - self.lengths
        self._chunks = chunks
        ids = np.concatenate([np.asarray(chunk.tokens, np.int64) for chunk in chunks])
        positions = np.concatenate([np.arange(chunk.start, chunk.start + len(chunk.tokens)) for chunk in chunks])
        slots = np.concatenate([_slots(chunk, page_size) for chunk in chunks])
        wanted = np.concatenate([_wanted(*pair) for pair in zip(chunks, self.offsets, strict=True)])
        self.input_ids = self.tensor(ids)[None]
        self.position_ids = self.tensor(positions)[None]
        self.slots = self.tensor(slots)
        self.wanted = self.tensor(wanted)

    @property
    def num_pages(self) -> np.ndarray:
        """Pages of each row, those of its new tokens included."""
        return np.asarray(-(-(self.starts + self.lengths) // self.page_size))

    def pages(self, row: int, first: int, count: int) -> np.ndarray:
        """`count` pages of a row from its `first` on.

        Filled up with a page of the row's own: another's may hold infinities, which no mask makes harmless.
        """
        pages = self._chunks[row].pages[first : min(first + count, int(self.num_pages[row]))]
        return np.asarray([*pages, *[pages[-1]] * (count - len(pages))], np.int64)

    def on(self, device: torch.device) -> Plan:
        """The same plan for layers on another device."""
        return self if device == self.device else Plan(self._chunks, self.page_size, device)

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """Bring numbers to the step's device."""
        return torch.from_numpy(values).to(self.device, non_blocking=True)


def _slots(chunk: RowChunk, page_size: int) -> np.ndarray:
    positions = np.arange(chunk.start, chunk.start + len(chunk.tokens))
    pages = np.asarray(chunk.pages, np.int64)
    return pages[positions // page_size] * page_size + positions % page_size


def _wanted(chunk: RowChunk, offset: int) -> np.ndarray:
    stop = offset + len(chunk.tokens)
    return np.arange(stop - chunk.num_wanted, stop)
