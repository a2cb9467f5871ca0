"""From the vectors of a text's tokens to one vector, as sentence-transformers' `Pooling` and `Normalize` make it."""

from __future__ import annotations

import torch

from cogsmith.engine.request import Pooling


def pooled(states: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """Pool `states` [rows, tokens, width] over the tokens that `mask` [rows, tokens] marks; return [rows, width].

    "cls" is the first of these tokens, "last" the last. With "none", `states` come back as they are. A row without any
    such token gives zeros, or for "max" minus infinity.
    """
    is_padding = ~mask[:, :, None]
    rows = torch.arange(len(states), device=states.device)
    match how:
        case "mean":
            return states.masked_fill(is_padding, 0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        case "max":
            return states.masked_fill(is_padding, -torch.inf).amax(1)
        case "cls":
            return states[rows, mask.to(torch.uint8).argmax(1)]
        case "last":
            return states[rows, mask.shape[1] - 1 - mask.flip(1).to(torch.uint8).argmax(1)]
    return states


def normalized(vectors: torch.Tensor) -> torch.Tensor:
    """Return each vector, along the last axis, at length 1; zeros stay zeros."""
    return torch.nn.functional.normalize(vectors, dim=-1)
