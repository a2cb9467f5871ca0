"""mixtral_sparse: all experts of a layer in one tensor, every shard with a part of each; as transformers' Mixtral.

w1, w2 and w3 are each [experts * hidden, width]: w2 lies transposed, since the program's block-sparse product takes it
from the left. The names and the order are those of accessory/model/LLM/mixtral_sparse.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from cogsmith.sources.accessory import llama, mixtral, params
from cogsmith.sources.accessory.inventory import Fused, Inventory
from cogsmith.sources.accessory.mixtral import config
from cogsmith.sources.accessory.params import Arguments
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

__all__ = ["config", "tensors"]


def tensors(arguments: Arguments, inventory: Inventory, vocabulary: int) -> Iterator[LazyTensor]:
    """Yield the tensors under transformers' names, every expert on its own."""
    shape, hidden = llama.read_shape(arguments), mixtral.hidden_width(arguments)
    count, _ = params.experts(arguments)
    yield from llama.ends(inventory, shape.width, vocabulary)
    yield from llama.attention(inventory, shape)
    yield from mixtral.gates(inventory, shape, count)
    for layer in range(shape.layers):
        for kind in ("w1", "w2", "w3"):
            fused = Fused(inventory.take(f"layers.{layer}.feed_forward.{kind}", count * hidden, shape.width), count)
            sizes = (shape.width, hidden) if kind == "w2" else (hidden, shape.width)
            for expert in range(count):
                cut = partial(_expert, expert=expert, hidden=hidden, transpose=kind == "w2")
                yield fused.cut(mixtral.expert_name(layer, expert, kind), cut, sizes)


def _expert(fused: torch.Tensor, expert: int, hidden: int, transpose: bool) -> torch.Tensor:
    rows = fused[expert * hidden : (expert + 1) * hidden]
    return rows.t() if transpose else rows
