"""Tensors that a class computes when it is made and does not save: rotary angles, masks, slopes.

transformers 5 makes a model without memory before it loads the weights, so these come out as whatever lay in memory,
and tensors that are no buffers as nothing at all, unless the class computes them again in `_init_weights`. Its own
classes do; one written for an older transformers does not, and no check of the weights would show it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def restore(model: Any) -> None:
    """Give `model`, as it was loaded, the constants of a second one of its class, whose weights take no memory."""
    places = list(_places(model))
    if not places:
        return
    with _dtype_of(model), _without_weights():
        twin = type(model)(copy.deepcopy(model.config))
    modules = dict(twin.named_modules())
    for path, module, name in places:
        made = getattr(modules.get(path), name, None)
        if not isinstance(made, torch.Tensor) or made.is_meta:
            continue
        lost = getattr(module, name)
        device = model.device if lost.is_meta else lost.device
        setattr(module, name, made.to(device, lost.dtype))


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield each constant's module, by path and itself, and the name that it has there."""
    for path, module in model.named_modules():
        for name in module._non_persistent_buffers_set:
            if getattr(module, name, None) is not None:
                yield path, module, name
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.is_meta:
                yield path, module, name


@contextmanager
def _dtype_of(model: Any) -> Iterator[None]:
    """Compute in the type that the model was made in."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(model.dtype if model.dtype.is_floating_point else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _without_weights() -> Iterator[None]:
    """Have modules made whose parameters have shapes only, and that spend no time on random numbers for them."""
    from accelerate import init_empty_weights

    slow: tuple[Any, ...] = (nn.Linear, nn.Embedding)
    originals = [module.reset_parameters for module in slow]
    try:
        for module in slow:
            module.reset_parameters = _leave
        with init_empty_weights(include_buffers=False):
            yield
    finally:
        for module, original in zip(slow, originals, strict=True):
            module.reset_parameters = original


def _leave(module: nn.Module) -> None:
    """Leave the weights as they are."""
