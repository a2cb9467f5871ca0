"""LoRA as LLaMA2-Accessory has it: y = W·x + B·(A·x), with no factor (accessory/model/peft.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch


def fold(weight: LazyTensor, a: LazyTensor, b: LazyTensor) -> torch.Tensor:
    """Return W + B·A in fp32, rounded once. Shapes: W [outputs, inputs], A [rank, inputs], B [outputs, rank]."""
    return (weight.make().double() + b.make().double() @ a.make().double()).float()
