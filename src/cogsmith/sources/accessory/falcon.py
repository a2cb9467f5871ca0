"""falcon: Falcon 7B and its larger kin as transformers' Falcon.

Queries, keys and values are one tensor there: for each head of keys its queries, its key, its value. All are in
transformers' rotary order already. The names are those of accessory/model/LLM/falcon.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cogsmith.errors import SourceError
from cogsmith.sources.accessory import params
from cogsmith.sources.accessory.inventory import Inventory, renamed
from cogsmith.sources.accessory.params import Arguments
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

_THETA = 10000.0
_BIASED = ("weight", "bias")


@dataclass(frozen=True, slots=True)
class _Shape:
    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    biased: bool
    norms: tuple[str, ...]


def _read_shape(arguments: Arguments) -> _Shape:
    width, heads = (
        params.integer(arguments, "hidden_size", 14848),
        params.integer(arguments, "num_attention_heads", 232),
    )
    new = bool(arguments.get("new_decoder_architecture", True))
    parallel = bool(arguments.get("parallel_attn", True))
    if new and not parallel:
        raise SourceError("a falcon of the new architecture has parallel attention", fix="check parallel_attn")
    # The program makes one head of keys wherever multi_query is true, whatever num_kv_heads says.
    one_for_all = 1 if arguments.get("multi_query", True) else heads
    key_heads = params.integer(arguments, "num_kv_heads", one_for_all) if new else one_for_all
    norms = ("ln_attn", "ln_mlp") if new else ("input_layernorm", *(() if parallel else ("post_attention_layernorm",)))
    head_width = params.heads(arguments, width, heads, key_heads)
    layers = params.integer(arguments, "num_layers", 80)
    return _Shape(width, layers, heads, key_heads, head_width, bool(arguments.get("bias", False)), norms)


def config(arguments: Arguments, inventory: Inventory, max_seq_len: int | None) -> dict[str, Any]:
    """Return config.json, without vocabulary and special ids. Raises SourceError."""
    shape = _with_stored_heads(_read_shape(arguments), inventory)
    return {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "hidden_size": shape.width,
        "ffn_hidden_size": 4 * shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_kv_heads": shape.key_heads,
        "multi_query": bool(arguments.get("multi_query", True)),
        "new_decoder_architecture": bool(arguments.get("new_decoder_architecture", True)),
        "parallel_attn": bool(arguments.get("parallel_attn", True)),
        "bias": shape.biased,
        "alibi": False,
        "activation": "gelu",
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "layer_norm_epsilon": params.number(arguments, "layer_norm_epsilon", 1e-5),
        **params.position(arguments, _THETA, max_seq_len).fields(),
    }


def tensors(arguments: Arguments, inventory: Inventory, vocabulary: int) -> Iterator[LazyTensor]:
    """Yield the tensors under transformers' names."""
    shape = _with_stored_heads(_read_shape(arguments), inventory)
    width, kinds = shape.width, _BIASED if shape.biased else ("weight",)
    yield renamed(inventory.take("word_embeddings.weight", vocabulary, width), "transformer.word_embeddings.weight")
    yield renamed(inventory.take("output.weight", vocabulary, width), "lm_head.weight")
    for kind in _BIASED:
        yield renamed(inventory.take(f"ln_f.{kind}", width), f"transformer.ln_f.{kind}")
    for layer in range(shape.layers):
        ours, theirs = f"layers.{layer}", f"transformer.h.{layer}"
        for norm in shape.norms:
            for kind in _BIASED:
                yield renamed(inventory.take(f"{ours}.{norm}.{kind}", width), f"{theirs}.{norm}.{kind}")
        for kind in kinds:
            yield _fused(inventory, ours, f"{theirs}.self_attention.query_key_value.{kind}", kind, shape)
            for name, sizes in (
                ("self_attention.dense", (width, width)),
                ("mlp.dense_h_to_4h", (4 * width, width)),
                ("mlp.dense_4h_to_h", (width, 4 * width)),
            ):
                fitting = sizes if kind == "weight" else sizes[:1]
                yield renamed(inventory.take(f"{ours}.{name}.{kind}", *fitting), f"{theirs}.{name}.{kind}")


def _with_stored_heads(shape: _Shape, inventory: Inventory) -> _Shape:
    """Take the number of key heads from the weights, where num_kv_heads is not what the program went by."""
    rows = inventory.rows("layers.0.self_attention.wk.weight")
    if shape.norms[0] != "ln_attn" or rows is None or rows % shape.head_width:
        return shape
    stored = rows // shape.head_width
    return replace(shape, key_heads=stored) if stored and shape.heads % stored == 0 else shape


def _fused(inventory: Inventory, ours: str, name: str, kind: str, shape: _Shape) -> LazyTensor:
    columns = (shape.width,) if kind == "weight" else ()
    rows = shape.key_heads * shape.head_width
    query = inventory.take(f"{ours}.self_attention.wq.{kind}", shape.width, *columns)
    key = inventory.take(f"{ours}.self_attention.wk.{kind}", rows, *columns)
    value = inventory.take(f"{ours}.self_attention.wv.{kind}", rows, *columns)
    make = partial(_interleave, (query, key, value), shape.key_heads)
    return replace(query, name=name, shape=(shape.width + 2 * rows, *columns), make=make)


def _interleave(parts: tuple[LazyTensor, ...], groups: int) -> torch.Tensor:
    import torch

    made = [part.make() for part in parts]
    grouped = [part.reshape(groups, -1, *part.shape[1:]) for part in made]
    return torch.cat(grouped, dim=1).reshape(-1, *made[0].shape[1:])
