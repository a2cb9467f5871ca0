"""mixtral: every expert whole, in the shard that owns it; as transformers' Mixtral.

The experts are written one by one, in the names that transformers reads into its fused tensors and that older
versions and other engines know. The names are those of accessory/model/LLM/mixtral.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cogsmith.sources.accessory import llama, params
from cogsmith.sources.accessory.inventory import Inventory, renamed
from cogsmith.sources.accessory.params import Arguments
from cogsmith.sources.write_safetensors import LazyTensor

_THETA = 1000000.0


def hidden_width(arguments: Arguments) -> int:
    """Return the hidden units of an expert."""
    return params.integer(arguments, "hidden_dim", 16384)


def config(arguments: Arguments, inventory: Inventory, max_seq_len: int | None) -> dict[str, Any]:
    """Return config.json, without vocabulary and special ids. Raises SourceError."""
    count, chosen = params.experts(arguments)
    return {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        **llama.sizes_and_norms(arguments, hidden_width(arguments)),
        "num_local_experts": count,
        "num_experts_per_tok": chosen,
        "sliding_window": None,
        **params.position(arguments, _THETA, max_seq_len).fields(),
    }


def tensors(arguments: Arguments, inventory: Inventory, vocabulary: int) -> Iterator[LazyTensor]:
    """Yield the tensors under transformers' names."""
    shape, hidden = llama.read_shape(arguments), hidden_width(arguments)
    count, _ = params.experts(arguments)
    yield from llama.ends(inventory, shape.width, vocabulary)
    yield from llama.attention(inventory, shape)
    yield from gates(inventory, shape, count)
    for layer in range(shape.layers):
        for expert in range(count):
            for kind in ("w1", "w2", "w3"):
                sizes = (shape.width, hidden) if kind == "w2" else (hidden, shape.width)
                weight = inventory.linear(f"layers.{layer}.feed_forward.experts.{expert}.{kind}", *sizes)
                yield renamed(weight, expert_name(layer, expert, kind))


def gates(inventory: Inventory, shape: llama.Shape, count: int) -> Iterator[LazyTensor]:
    """Yield what chooses the experts of each layer."""
    for layer in range(shape.layers):
        gate = inventory.take(f"layers.{layer}.feed_forward.gate.weight", count, shape.width)
        yield renamed(gate, f"model.layers.{layer}.block_sparse_moe.gate.weight")


def expert_name(layer: int, expert: int, kind: str) -> str:
    """Return the name of one expert's weight: `kind` is w1 (gate), w2 (down) or w3 (up)."""
    return f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{kind}.weight"
