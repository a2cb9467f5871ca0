"""What transformers' `get_memory_footprint` says of one model in other types and bits. Nothing is loaded for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch

from cogsmith.engine import quantization
from cogsmith.quant import Quant

_TYPES = {"fp32": torch.float32, "fp16": torch.float16}
_QUANTS = {"int8": Quant(bits=8), "4-bit": Quant(bits=4)}


def footprints(skeleton: Callable[[torch.dtype], Any], dtype: torch.dtype, *, in_bits: bool) -> Mapping[str, int]:
    """Return the bytes by "fp32", "fp16", "int8" and "4-bit".

    `skeleton` makes the model on torch's meta device. What is not quantised is in `dtype` in the last two; these are
    left out where `in_bits` is false or bitsandbytes is not installed.
    """
    found = {name: int(skeleton(each).get_memory_footprint()) for name, each in _TYPES.items()}
    if not in_bits or importlib.util.find_spec("bitsandbytes") is None:
        return found
    from transformers import BitsAndBytesConfig

    for name, quant in _QUANTS.items():
        settings = BitsAndBytesConfig.from_dict(quant.to_bitsandbytes(str(dtype).removeprefix("torch.")))
        found[name], _ = quantization.quantise_skeleton(skeleton(dtype), settings)
    return found
