"""The likeliest ids of each row, in one order whatever the device, the batch and how many are asked for.

Equal scores are common in bfloat16, and `torch.topk` puts them in no order. Here lower ids come first, so that the
first is what `argmax` gives, and a draw among the likeliest depends on nothing but its own row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

BLOCK = 64
"""Rows are padded to a multiple of this. A row's maximum per block shows where to look: several times less to rank."""

_LAST_ID = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Ranked:
    """The likeliest ids of each row and their scores, `[rows, k]`, likeliest first."""

    scores: torch.Tensor
    ids: torch.Tensor


def padded(logits: torch.Tensor) -> torch.Tensor:
    """Copy `logits` `[rows, head]` to float32 `[rows, width]`, minus infinity beyond the head.

    Whole blocks also give every row the same alignment, and so the same order of summation.
    """
    rows, head = logits.shape
    scores = logits.new_empty((rows, -(-head // BLOCK) * BLOCK), dtype=torch.float32)
    scores[:, :head] = logits
    scores[:, head:] = -math.inf
    return scores


def likeliest(scores: torch.Tensor, k: int) -> Ranked:
    """Rank the `k` highest of each row of `scores` `[rows, width]`, which `padded` made; lower ids first among equals.

    The `k` highest lie in the `k` blocks with the highest maxima. NaN ranks highest.
    """
    rows, width = scores.shape
    count = width // BLOCK
    if k < count:
        first_ids = _highest(scores.view(rows, count, BLOCK).amax(-1), _backwards(count, scores.device), k) * BLOCK
        ids = (first_ids[:, :, None] + torch.arange(BLOCK, device=scores.device)).flatten(1)
        highest = _highest(scores.gather(-1, ids), _LAST_ID - ids, k)
    else:
        highest = _highest(scores, _backwards(width, scores.device), k)
    return Ranked(scores.gather(-1, highest), highest)


def _highest(values: torch.Tensor, backwards: torch.Tensor, k: int) -> torch.Tensor:
    """Return the ids of the `k` highest `values` of each row, whose ids are `_LAST_ID - backwards`.

    A whole number made of both has the order that is wanted.
    """
    # Adding 0.0 makes one zero of two. The bits of a float are in its order, those of negative ones in reverse.
    bits = values.nan_to_num(math.inf, math.inf, -math.inf).add_(0.0).view(torch.int32)
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = torch.add(backwards, order.long(), alpha=_LAST_ID + 1)
    return (~keys.topk(k, dim=-1).values).bitwise_and_(_LAST_ID)


def _backwards(count: int, device: torch.device) -> torch.Tensor:
    return torch.arange(_LAST_ID, _LAST_ID - count, -1, device=device)
