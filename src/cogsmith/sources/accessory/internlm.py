"""internlm: InternLM 7B as transformers' Llama with biases in its attention.

Here w2 is the up projection and w3 goes down again. Queries and keys are in transformers' order already. The names are
those of accessory/model/LLM/internlm.py, which can only run unsharded.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from cogsmith.errors import SourceError
from cogsmith.sources.accessory import params
from cogsmith.sources.accessory.inventory import Fused, Inventory, renamed
from cogsmith.sources.accessory.params import Arguments
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

_THETA = 10000.0


def _sizes(arguments: Arguments) -> tuple[int, int, int, int]:
    """Return width, layers, heads and hidden units."""
    width = params.integer(arguments, "hidden_size", 4096)
    layers, heads = params.integer(arguments, "num_layers", 32), params.integer(arguments, "num_attention_heads", 32)
    hidden = int(width * params.number(arguments, "mlp_ratio", 8 / 3))
    return width, layers, heads, params.up_to_multiple(hidden, params.integer(arguments, "multiple_of", 256))


def config(arguments: Arguments, inventory: Inventory, max_seq_len: int | None) -> dict[str, Any]:
    """Return config.json, without vocabulary and special ids. Raises SourceError."""
    width, layers, heads, hidden = _sizes(arguments)
    if arguments.get("norm_type", "rmsnorm") != "rmsnorm":
        raise SourceError(
            f"norm_type is {arguments['norm_type']!r}, which no Llama has",
            fix='only an internlm with norm_type "rmsnorm", as all published ones have, can be imported',
        )
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": params.heads(arguments, width, heads, heads),
        "hidden_act": "silu",
        "rms_norm_eps": params.number(arguments, "layer_norm_epsilon", 1e-5),
        "attention_bias": True,
        "mlp_bias": False,
        **params.position(arguments, _THETA, max_seq_len).fields(),
    }


def tensors(arguments: Arguments, inventory: Inventory, vocabulary: int) -> Iterator[LazyTensor]:
    """Yield the tensors under transformers' names."""
    width, layers, _, hidden = _sizes(arguments)
    yield renamed(inventory.take("embedding.weight", vocabulary, width), "model.embed_tokens.weight")
    yield renamed(inventory.take("norm.weight", width), "model.norm.weight")
    yield renamed(inventory.take("head.weight", vocabulary, width), "lm_head.weight")
    for layer in range(layers):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        for norm, target in (("norm1", "input_layernorm"), ("norm2", "post_attention_layernorm")):
            yield renamed(inventory.take(f"{ours}.{norm}.weight", width), f"{theirs}.{target}.weight")
        yield from _attention(inventory, f"{ours}.mixer", f"{theirs}.self_attn", width)
        for name, target, sizes in (
            ("w1", "gate_proj", (hidden, width)),
            ("w2", "up_proj", (hidden, width)),
            ("w3", "down_proj", (width, hidden)),
        ):
            yield renamed(inventory.take(f"{ours}.mlp.{name}.weight", *sizes), f"{theirs}.mlp.{target}.weight")


def _attention(inventory: Inventory, ours: str, theirs: str, width: int) -> Iterator[LazyTensor]:
    for kind, sizes in (("weight", (width, width)), ("bias", (width,))):
        fused = Fused(inventory.take(f"{ours}.Wqkv.{kind}", 3 * width, *sizes[1:]), 3)
        for third, name in enumerate("qkv"):
            yield fused.cut(f"{theirs}.{name}_proj.{kind}", partial(_third, index=third), sizes)
        yield renamed(inventory.take(f"{ours}.out_proj.{kind}", *sizes), f"{theirs}.o_proj.{kind}")


def _third(fused: torch.Tensor, index: int) -> torch.Tensor:
    return fused.chunk(3)[index]
