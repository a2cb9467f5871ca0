"""The order of a head's rows. Meta's programs turn neighbours (0, 1), (2, 3) …; transformers turns halves (0, n/2) …"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cogsmith.sources.accessory.inventory import changed
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch


def halves(tensor: LazyTensor, name: str, heads: int) -> LazyTensor:
    """Return a query's or key's weight, [heads * width, inputs], or bias in the order of transformers."""
    return changed(tensor, name, partial(_reorder, heads=heads))


def _reorder(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    pairs = tensor.reshape(heads, tensor.shape[0] // heads // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)
