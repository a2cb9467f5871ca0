"""llama and llama_peft: LLaMA 1 and 2, Code Llama, and what is trained from them, as transformers' Llama.

Biases come with llama_peft's bias_tuning. The names are those of accessory/model/LLM/llama.py and llama_peft.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cogsmith.sources.accessory import params
from cogsmith.sources.accessory.inventory import Inventory, renamed
from cogsmith.sources.accessory.params import Arguments
from cogsmith.sources.accessory.rotary import halves
from cogsmith.sources.write_safetensors import LazyTensor

_ATTENTION = ("wq", "wk", "wv", "wo")
_FEED_FORWARD = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_THETA = 10000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that both Llama's and Mixtral's attention have."""

    width: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int

    def fields(self) -> dict[str, Any]:
        """Return config.json's names for them."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head_width,
        }


def read_shape(arguments: Arguments) -> Shape:
    """Read the sizes. Raises SourceError for numbers that do not go together."""
    width, heads = params.integer(arguments, "dim", 4096), params.integer(arguments, "n_heads", 32)
    key_value = params.integer(arguments, "n_kv_heads", heads)
    layers = params.integer(arguments, "n_layers", 32)
    return Shape(width, layers, heads, key_value, params.heads(arguments, width, heads, key_value))


def feed_forward_width(arguments: Arguments) -> int:
    """Return the hidden units of a layer: two thirds of four times `dim`, scaled, then up to a whole multiple."""
    hidden = int(2 * (4 * params.integer(arguments, "dim", 4096)) / 3)
    if "ffn_dim_multiplier" in arguments:
        hidden = int(params.number(arguments, "ffn_dim_multiplier", 1.0) * hidden)
    return params.up_to_multiple(hidden, params.integer(arguments, "multiple_of", 256))


def sizes_and_norms(arguments: Arguments, hidden: int) -> dict[str, Any]:
    """Return what config.json says of both Llama's and Mixtral's layers; `hidden` units are in a feed-forward part."""
    return {
        **read_shape(arguments).fields(),
        "intermediate_size": hidden,
        "hidden_act": "silu",
        "rms_norm_eps": params.number(arguments, "norm_eps", 1e-5),
    }


def config(arguments: Arguments, inventory: Inventory, max_seq_len: int | None) -> dict[str, Any]:
    """Return config.json, without vocabulary and special ids. Raises SourceError."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        **sizes_and_norms(arguments, feed_forward_width(arguments)),
        "attention_bias": inventory.has_bias(*_ATTENTION),
        "mlp_bias": inventory.has_bias(*_FEED_FORWARD),
        **params.position(arguments, _THETA, max_seq_len).fields(),
    }


def tensors(arguments: Arguments, inventory: Inventory, vocabulary: int) -> Iterator[LazyTensor]:
    """Yield the tensors under transformers' names."""
    shape, hidden = read_shape(arguments), feed_forward_width(arguments)
    biased = inventory.has_bias(*_FEED_FORWARD)
    yield from ends(inventory, shape.width, vocabulary)
    yield from attention(inventory, shape)
    for layer in range(shape.layers):
        for ours, theirs in _FEED_FORWARD.items():
            sizes = (shape.width, hidden) if ours == "w2" else (hidden, shape.width)
            name, target = f"layers.{layer}.feed_forward.{ours}", f"model.layers.{layer}.mlp.{theirs}"
            yield renamed(inventory.linear(name, *sizes), f"{target}.weight")
            if biased:
                yield renamed(inventory.bias(name, sizes[0]), f"{target}.bias")


def ends(inventory: Inventory, width: int, vocabulary: int) -> Iterator[LazyTensor]:
    """Yield the embedding, the last norm and the head."""
    yield renamed(inventory.take("tok_embeddings.weight", vocabulary, width), "model.embed_tokens.weight")
    yield renamed(inventory.take("norm.weight", width), "model.norm.weight")
    yield renamed(inventory.take("output.weight", vocabulary, width), "lm_head.weight")


def attention(inventory: Inventory, shape: Shape) -> Iterator[LazyTensor]:
    """Yield every layer's norms and attention, queries and keys in transformers' rotary order."""
    biased = inventory.has_bias(*_ATTENTION)
    rows = {"q": shape.heads, "k": shape.key_value_heads, "v": shape.key_value_heads}
    for layer in range(shape.layers):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        norm = inventory.take(f"{ours}.attention_norm.weight", shape.width)
        yield renamed(norm, f"{theirs}.input_layernorm.weight")
        norm = inventory.take(f"{ours}.ffn_norm.weight", shape.width)
        yield renamed(norm, f"{theirs}.post_attention_layernorm.weight")
        for kind, heads in rows.items():
            name, target = f"{ours}.attention.w{kind}", f"{theirs}.self_attn.{kind}_proj"
            size = heads * shape.head_width
            parts = [(inventory.linear(name, size, shape.width), f"{target}.weight")]
            if biased:
                parts.append((inventory.bias(name, size), f"{target}.bias"))
            for part, full in parts:
                yield renamed(part, full) if kind == "v" else halves(part, full, heads)
        name, target = f"{ours}.attention.wo", f"{theirs}.self_attn.o_proj"
        yield renamed(inventory.linear(name, shape.width, shape.heads * shape.head_width), f"{target}.weight")
        if biased:
            yield renamed(inventory.bias(name, shape.width), f"{target}.bias")
