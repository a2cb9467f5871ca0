"""The joint cache of rows that decode together: transformers' caches of single rows, merged and taken apart again.

A layer keeps keys and values, `[rows, heads, length, head_dim]`, padded on the left to the longest row, or states of a
fixed size, `[rows, ...]`, or both; in `transformers.cache_utils`, as of version 5.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn.functional import pad

from cogsmith.engine.loader import empty_cache

_STATES = ("conv_states", "recurrent_states")


class Batch:
    """A cache of many rows, with each row's length in it. Rows are named by any number."""

    def __init__(self) -> None:
        self.cache: Any = None
        self.lengths: dict[int, int] = {}

    @property
    def width(self) -> int:
        """Columns of the cache: the longest row's length."""
        return max(self.lengths.values(), default=0)

    @property
    def holds_keys(self) -> bool:
        """Whether some layer keeps keys, and so must be told where a row's padding ends."""
        return any(_holds_keys(layer) for layer in self.cache.layers)

    def mask(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return which columns are a row's own, the next one among them: `[rows, width + 1]` from `[rows, 1]`."""
        columns = torch.arange(self.width + 1, device=lengths.device)
        return (columns >= self.width - lengths).long()

    def join(self, row: int, cache: Any, length: int) -> None:
        """Add a row of `length` tokens with a cache of its own, which is used up."""
        if self.lengths:
            width = max(self.width, length)
            for mine, theirs in zip(self.cache.layers, cache.layers, strict=True):
                _merge_layer(mine, theirs, width)
        else:
            self.cache = cache
        self.lengths[row] = length

    def take(self, row: int) -> Any:
        """Remove a row and return a cache of its own, without padding."""
        index, padding = list(self.lengths).index(row), self.width - self.lengths[row]
        taken = copy.copy(self.cache)
        taken.layers = [_copy_layer(layer) for layer in self.cache.layers]
        taken.reorder_cache(torch.tensor([index]))
        _drop_columns(taken, padding)
        self.leave(row)
        return taken

    def leave(self, row: int) -> None:
        """Drop a row, and the columns that only it used."""
        kept = torch.tensor([index for index, other in enumerate(self.lengths) if other != row])
        width_before = self.width
        del self.lengths[row]
        if not self.lengths:
            self.cache = None
            return
        self.cache.reorder_cache(kept)
        _drop_columns(self.cache, width_before - self.width)

    def grow(self) -> None:
        """Count the token that every row has just got."""
        self.lengths = {row: length + 1 for row, length in self.lengths.items()}


def whole_cache(config: Any) -> Any:
    """Return an empty cache of the kind that a model of `config` needs, its sliding layers keeping all keys.

    A layer that forgets its oldest keys cannot be padded. The model masks what lies outside its window in any case.
    Raises TypeError for a layer of another kind: what it keeps beside its keys could not be merged.
    """
    from transformers.cache_utils import (
        DummyLayer,
        DynamicLayer,
        DynamicSlidingWindowLayer,
        LinearAttentionAndFullAttentionLayer,
        LinearAttentionAndSlidingWindowAttentionLayer,
        LinearAttentionLayer,
    )

    known = (DynamicLayer, LinearAttentionLayer, LinearAttentionAndFullAttentionLayer, DummyLayer)
    cache = empty_cache(config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicSlidingWindowLayer:
            cache.layers[index] = DynamicLayer()
        elif type(layer) is LinearAttentionAndSlidingWindowAttentionLayer:
            cache.layers[index] = LinearAttentionAndFullAttentionLayer(number_of_states=layer.number_of_states)
        elif type(layer) not in known:
            raise TypeError(f"layers of the kind {type(layer).__name__} cannot be batched")
    return cache


def _holds_keys(layer: Any) -> bool:
    """Some layers share another layer's keys and hold none of their own; some have a state in their place."""
    keys = getattr(layer, "keys", None)
    return keys is not None and keys.numel() > 0


def _merge_layer(mine: Any, theirs: Any, width: int) -> None:
    if _holds_keys(mine):
        mine.keys = torch.cat([_pad_left(mine.keys, width), _pad_left(theirs.keys, width)])
        mine.values = torch.cat([_pad_left(mine.values, width), _pad_left(theirs.values, width)])
    for name in _STATES:
        states = getattr(mine, name, {})
        for index, state in states.items():
            if state is not None:
                states[index] = torch.cat([state, getattr(theirs, name)[index]])


def _copy_layer(layer: Any) -> Any:
    """Copy a layer so that what is put in its places does not show in the original; the tensors stay shared."""
    copied = copy.copy(layer)
    for name in _STATES:
        if hasattr(layer, name):
            setattr(copied, name, dict(getattr(layer, name)))
    return copied


def _drop_columns(cache: Any, count: int) -> None:
    for layer in cache.layers if count else ():
        if _holds_keys(layer):
            layer.keys, layer.values = layer.keys[..., count:, :], layer.values[..., count:, :]


def _pad_left(states: torch.Tensor, width: int) -> torch.Tensor:
    """Pad `[rows, heads, length, head_dim]` with zeros to `width` tokens, on the left."""
    return pad(states, (0, 0, width - states.shape[-2], 0))
