"""A checkpoint's tensors, taken one by one under the name and the shape that the model's arguments ask for.

A type's module asks for what it needs. At the end, everything that was missing, of another shape, or not asked for is
one error. Nothing is read while taking: what is handed out is computed when it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cogsmith.errors import SourceError
from cogsmith.sources.accessory.peft import fold
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

_SHOWN = 8


class Inventory:
    """`tensors` by their name without `llma.`. With `tuned`, layers may have biases and LoRA beside their weights."""

    def __init__(self, tensors: Mapping[str, LazyTensor], *, tuned: bool = False) -> None:
        self._left = dict(tensors)
        self._tuned = tuned
        self._dtype = next(iter(tensors.values())).dtype
        self._problems: list[str] = []
        self._missing: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def rows(self, name: str) -> int | None:
        """Return the first dimension of the tensor called `name`; None where it is not there."""
        return self._left[name].shape[0] if name in self._left else None

    def take(self, name: str, *shape: int) -> LazyTensor:
        """Hand out the tensor called `name`; it is noted where it is missing or has not this `shape`."""
        tensor = self._left.pop(name, None)
        if tensor is None:
            self._missing.append(name)
            return self._nothing(name, shape)
        if tensor.shape != shape:
            self._problems.append(f"{name} is {list(tensor.shape)}, and the model's arguments ask for {list(shape)}")
            return self._nothing(name, shape)
        return tensor

    def linear(self, name: str, outputs: int, inputs: int) -> LazyTensor:
        """Hand out the weight of the layer called `name`, with its LoRA folded in."""
        weight = self.take(f"{name}.weight", outputs, inputs)
        first, second = f"{name}.lora_a.weight", f"{name}.lora_b.weight"
        if not self._tuned or not (first in self or second in self):
            return weight
        rank = self._left[first].shape[0] if first in self else self._left[second].shape[-1]
        a, b = self.take(first, rank, inputs), self.take(second, outputs, rank)
        return replace(weight, make=partial(fold, weight, a, b))

    def bias(self, name: str, size: int) -> LazyTensor:
        """Hand out the bias of the layer called `name`. Where it is missing it is zero, as it is before training."""
        full = f"{name}.bias"
        return self.take(full, size) if full in self else self._nothing(full, (size,))

    def has_bias(self, *layers: str) -> bool:
        """Tell whether layers whose names end so have a bias. Only tuned types do."""
        return self._tuned and any(name.endswith(tuple(f".{layer}.bias" for layer in layers)) for name in self._left)

    def finish(self, llama_type: str) -> None:
        """Raise SourceError, all faults in one, unless everything fitted and nothing is left."""
        faults = list(self._problems)
        if self._missing:
            faults.append(f"missing: {_some(self._missing)}")
        if self._left:
            faults.append(f"no part of a {llama_type}: {_some(list(self._left))}")
        if faults:
            raise SourceError(
                f"the weights are not those of the {llama_type} that its arguments describe\n  " + "\n  ".join(faults),
                fix="check llama_type, llama_config and that no shard is missing",
            )

    def _nothing(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        return LazyTensor(name, self._dtype, shape, partial(_zeros, shape, self._dtype))


class Fused:
    """A tensor that `count` others are cut from: computed for the first of them, and let go after the last."""

    def __init__(self, tensor: LazyTensor, count: int) -> None:
        self._tensor = tensor
        self._left = count
        self._made: torch.Tensor | None = None

    def cut(self, name: str, cut: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> LazyTensor:
        """Return what `cut` takes out of it, as a tensor of its own."""
        return replace(self._tensor, name=name, shape=shape, make=partial(self._make, cut))

    def _make(self, cut: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        whole = self._tensor.make() if self._made is None else self._made
        self._left -= 1
        self._made = whole if self._left > 0 else None
        return cut(whole)


def renamed(tensor: LazyTensor, name: str) -> LazyTensor:
    """Return the tensor under another name."""
    return replace(tensor, name=name)


def changed(tensor: LazyTensor, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> LazyTensor:
    """Return what `change` makes of the tensor, of the same shape, under the name `name`."""
    return replace(tensor, name=name, make=partial(_applied, change, tensor))


def _applied(change: Callable[[torch.Tensor], torch.Tensor], tensor: LazyTensor) -> torch.Tensor:
    return change(tensor.make())


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    import torch

    return torch.zeros(shape, dtype=dtype)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
