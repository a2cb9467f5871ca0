"""Keys and values that come with a request or go out with an answer: what a model's rows keep, and what fits them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cogsmith.engine.request import Cache, GenerateRequest, ScoreRequest, TextRequest
from cogsmith.engine.rows.forward import NOT_THIS_ONE, Forward, NewCache
from cogsmith.engine.rows.pool import LayerShape
from cogsmith.errors import RequestError

Shapes = Mapping[int, LayerShape]


@torch.inference_mode()
def shapes_of(forward: Forward, new_cache: NewCache) -> Shapes | None:
    """Return what each layer of a model's cache keeps of a token.

    None where that is not only keys and values of every token: a window forgets some, and a state is none.
    """
    from transformers.cache_utils import DynamicLayer

    cache = new_cache()
    try:
        forward(torch.zeros((1, 1), dtype=torch.long, device=forward.device), cache)
        layers = list(cache.layers)
    except (*NOT_THIS_ONE, AttributeError):
        return None
    if not layers or any(type(layer) is not DynamicLayer or not layer.is_initialized for layer in layers):
        return None
    return {index: _shape(layer) for index, layer in enumerate(layers)}


def admit_cache(request: TextRequest, shapes: Shapes | None) -> None:
    """Check that a request's cache fits the model, and that one can be given out where it is asked for.

    Raises RequestError.
    """
    if isinstance(request, ScoreRequest):
        return
    keeps = not isinstance(request, GenerateRequest) and request.keeps_cache
    if shapes is None and (keeps or request.cache):
        raise RequestError(
            "this model's rows keep no plain keys and values, so no cache is given out or taken",
            fix="leave out return_cache and cache: the prompt alone gives the same answer",
        )
    if request.cache is not None and shapes is not None:
        _check(request.cache, shapes)
        if request.media is not None:
            raise RequestError("a cache is given, and images", fix="send one of them")


def _check(cache: Cache, shapes: Shapes) -> None:
    if cache.layers.keys() != shapes.keys():
        raise RequestError(
            f"the cache is of a model with {len(cache.layers)} layers, and this one has {len(shapes)}",
            fix="send a cache that this model gave",
        )
    for index, (keys, values) in cache.layers.items():
        shape = shapes[index]
        expected = [(shape.heads, cache.num_tokens, dim) for dim in (shape.key_dim, shape.value_dim)]
        if [tuple(keys.shape), tuple(values.shape)] != expected or {keys.dtype, values.dtype} != {shape.dtype}:
            raise RequestError(
                f"layer {index} of the cache has keys {_described(keys)} and values {_described(values)}, and this "
                f"model's have the shapes {expected[0]} and {expected[1]} in {shape.dtype}",
                fix="send a cache that this model gave",
            )


def _shape(layer: Any) -> LayerShape:
    keys, values = layer.keys, layer.values
    return LayerShape(keys.shape[1], keys.shape[-1], values.shape[-1], keys.dtype, keys.device)


def _described(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} in {tensor.dtype}"
