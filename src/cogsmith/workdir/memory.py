"""How much GPU memory a model will want. An estimate to choose a machine by, not a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cogsmith.config.model import Model
from cogsmith.manifest import CAUSAL_LM

PLANNED_CONTEXT = 4096
"""Tokens that each row of a full batch is taken to hold, unless the model's limit is lower."""

OVERHEAD_BYTES = 2**30
"""The CUDA context, the libraries' workspaces and the activations of one step."""

_CACHE_BYTES_PER_VALUE = 2
_DTYPE_BITS = {"float32": 32.0, "float16": 16.0, "bfloat16": 16.0}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of GPU memory by purpose. `cache` is None where the model's shape is not known yet.

    `unquantised` is what the weights would take if nothing quantised them.
    """

    weights: int
    unquantised: int
    cache: int | None
    overhead: int = OVERHEAD_BYTES

    @property
    def total(self) -> int:
        """All of it; without the cache where that is unknown."""
        return self.weights + (self.cache or 0) + self.overhead


def estimate(model: Model, checkpoint_bytes: int, parameters: int | None, shape: Mapping[str, Any] | None) -> Memory:
    """Estimate the memory of a full batch. `shape` is the model's config.json, None where it is not known yet.

    `checkpoint_bytes` is before any quantisation.

    weights    parameters x bits / 8, or the checkpoint's bytes where either is unknown; quantised, embeddings and
               head keep their bits, and the others' come with their scales
    cache      2 (keys and values) x layers x key-value heads x head size x 2 bytes
                 x min(PLANNED_CONTEXT, limits.max_context, trained context) x limits.max_batch_size;
               none for a model that gives vectors
    overhead   1 GiB
    """
    bits = _DTYPE_BITS.get(str(model.model_args.get("dtype", model.model_args.get("torch_dtype"))))
    unquantised = int(parameters * bits / 8) if parameters and bits else checkpoint_bytes
    weights = unquantised
    if model.quant and parameters:
        weights = model.quant.weight_bytes(parameters, shape, 8 * unquantised / parameters)
    if model.task != CAUSAL_LM:
        return Memory(weights, unquantised, cache=0)
    return Memory(weights, unquantised, _cache_bytes(model, shape) if shape else None)


def _cache_bytes(model: Model, shape: Mapping[str, Any]) -> int | None:
    layers, heads = shape.get("num_hidden_layers"), shape.get("num_attention_heads")
    hidden = shape.get("hidden_size")
    if not (layers and heads and hidden):
        return None
    key_value_heads = shape.get("num_key_value_heads") or heads
    head_size = shape.get("head_dim") or hidden // heads
    context = min(
        PLANNED_CONTEXT,
        model.limits.max_context or PLANNED_CONTEXT,
        shape.get("max_position_embeddings") or PLANNED_CONTEXT,
    )
    per_token = 2 * layers * key_value_heads * head_size * _CACHE_BYTES_PER_VALUE
    return int(per_token * context * model.limits.max_batch_size)
