"""`config.autocast_dtype`: a model that computes in another type than its weights are stored in, by torch's autocast.

MosaicML's generation script runs `generate` so. Which operations change their type is torch's list: matrix products do,
norms and softmax do not.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from cogsmith.errors import UserError
from cogsmith.manifest import AUTOCAST_DTYPE


def taken(model_args: Mapping[str, Any]) -> tuple[dict[str, Any], torch.dtype | None]:
    """Return the arguments of `from_pretrained` alone, and the type to compute in; None for that of the weights.

    Raises UserError for what is no type of half precision: float32 is no casting at all.
    """
    rest = dict(model_args)
    asked = rest.pop(AUTOCAST_DTYPE, None)
    name = str(asked).removeprefix("torch.")
    if asked is None or name == "float32":
        return rest, None
    if name not in ("float16", "bfloat16"):
        raise UserError(f"{AUTOCAST_DTYPE} is {asked!r}", fix='give "bf16" or "fp16", or leave it out')
    return rest, getattr(torch, name)


def cast(model: Any, dtype: torch.dtype | None) -> None:
    """Have every forward pass of `model` run under autocast to `dtype`; None changes nothing."""
    if dtype is None:
        return
    forward, device = model.forward, next(model.parameters()).device.type

    @functools.wraps(forward)
    def under_autocast(*args: Any, **kwargs: Any) -> Any:
        # Within one pass a weight is used once, and a recorded graph must not hold what a cache has let go.
        with torch.autocast(device, dtype=dtype, cache_enabled=False):
            return forward(*args, **kwargs)

    model.forward = under_autocast
