"""Biases and masks of all rows of a step, at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import embedding

from cogsmith.engine.dense import DenseRow
from cogsmith.engine.transfer import to_device


def add_dense(scores: torch.Tensor, rows: Sequence[DenseRow | None]) -> None:
    """Add to each row of `scores` `[rows, head_size]` what is its own, in place."""
    _add([(scores[i], row.on(scores.device)) for i, row in enumerate(rows) if row is not None])


def exclude(scores: torch.Tensor, bitsets: Sequence[np.ndarray | None]) -> None:
    """Set to minus infinity what a row's bitset lacks, in `scores` `[rows, head_size]`, in place.

    Bit i % 8 of byte i // 8 stands for id i; what is beyond its end is excluded. They travel as they are, in one copy.
    """
    present = [(i, bitset) for i, bitset in enumerate(bitsets) if bitset is not None]
    if not present:
        return
    packed = np.zeros((len(present), math.ceil(scores.shape[1] / 8)), np.uint8)
    for row, (_, bitset) in zip(packed, present, strict=True):
        known = bitset[: len(row)]
        row[: len(known)] = known
    dense = embedding(to_device(packed, scores.device).int(), _of_byte(scores.device)).flatten(1)
    _add([(scores[i], dense[place, : scores.shape[1]]) for place, (i, _) in enumerate(present)])


def _add(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    if pairs:
        # One operation over all of them, on a GPU too.
        torch._foreach_add_([row for row, _ in pairs], [values for _, values in pairs])


@functools.cache
def _of_byte(device: torch.device) -> torch.Tensor:
    """What each byte of a bitset adds to the scores of its eight ids, `[256, 8]`."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return to_device(np.where(bits, 0, -np.inf).astype(np.float32), device)
