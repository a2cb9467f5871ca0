"""The model's tensors by transformers' names, each made only when it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cogsmith.config.model import Precision
from cogsmith.errors import ConversionError, SourceError
from cogsmith.sources.base import Reporter
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

Weights = dict[str, LazyTensor]
"""Tensors by name. None is in memory before its `make` is called."""

DTYPES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What torch and config.json call each output precision."""

_MODEL = "model"
"""The attribute under which a HuggingFaceModel of Composer keeps the Hugging Face model."""

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module"})
"""What torch.compile, FSDP and activation checkpointing put into names."""

_DATA_PARALLEL = "module"

_OLD_BUFFER = re.compile(r"\.(?:(?:attn|attention)\.(?:masked_)?bias|rotary_emb\.inv_freq|position_ids)$")
"""Constants, such as the causal mask, that older releases of transformers stored and every release makes anew."""

_AGAIN = "save the checkpoint again from the trained model"
_SHOWN = 5


def take_weights(tensors: Mapping[str, Any], subject: str, reporter: Reporter) -> Weights:
    """Return the Hugging Face model's tensors, without the training run's names around theirs.

    What belongs to the run alone (a loss with weights of its own) is left out, and said. Raises SourceError where
    nothing belongs to the model, where an entry is no tensor of real numbers, or where two have one name.
    """
    import torch

    weights: Weights = {}
    others, strange = [], []
    for name, tensor in tensors.items():
        inner = _inner_name(name) if isinstance(name, str) else None
        if inner is None:
            others.append(str(name))
        elif not isinstance(tensor, torch.Tensor):
            strange.append(name)
        elif inner in weights:
            raise SourceError(f"{subject} holds {inner} twice, and one of them as {name}", fix=_AGAIN)
        elif tensor.is_complex():
            raise SourceError(f"{subject} holds {name} in complex numbers, which no model here has", fix=_AGAIN)
        elif not _is_old_buffer(inner, tensor):
            weights[inner] = as_lazy(inner, tensor)
    if strange:
        raise SourceError(
            f"{subject} holds {_some(strange)} in parts that lie elsewhere: each process has saved its own",
            fix="load it in Composer and save it whole: fsdp_config state_dict_type 'full'",
        )
    if not weights:
        raise SourceError(f"{subject} has no weights of a Hugging Face model; it has: {_some(others)}")
    if others:
        reporter.note(f"{subject}: left out, because they are not of the Hugging Face model: {_some(others)}")
    return weights


def as_lazy(name: str, tensor: torch.Tensor) -> LazyTensor:
    """Return `tensor` as it is, under `name`."""
    return LazyTensor(name, tensor.dtype, tuple(tensor.shape), lambda: tensor)


def renamed(tensor: LazyTensor, name: str) -> LazyTensor:
    """Return the same tensor under another name."""
    return replace(tensor, name=name)


def changed(tensor: LazyTensor, name: str, shape: tuple[int, ...], change: Callable[..., torch.Tensor]) -> LazyTensor:
    """Return what `change` makes of `tensor`: of the same type, and of `shape`."""
    return LazyTensor(name, tensor.dtype, shape, lambda: change(tensor.make()))


def without_copies(weights: Weights, ties: Mapping[str, str], *, may_differ: bool) -> tuple[Weights, bool]:
    """Leave out the copies of tensors that the model shares; `ties` maps a copy's name to the original's.

    Returns the rest, and whether all were equal. Where `may_differ`, copies that are not are kept. Raises
    ConversionError where they differ otherwise.
    """
    pairs = [(copy, original) for copy, original in ties.items() if copy in weights and original in weights]
    differing = [(copy, original) for copy, original in pairs if not _is_same(weights[copy], weights[original])]
    if differing and not may_differ:
        shown = ", ".join(f"{copy} is not {original}" for copy, original in differing)
        raise ConversionError(
            f"the model shares weights, and the checkpoint's copies differ: {shown}",
            fix="save the checkpoint again from the trained model",
        )
    if differing:
        return weights, False
    copies = {copy for copy, _ in pairs}
    return {name: tensor for name, tensor in weights.items() if name not in copies}, True


def cast(weights: Iterable[LazyTensor], precision: Precision) -> Iterator[LazyTensor]:
    """Yield the tensors, those of floating-point numbers in `precision`: one cast of each.

    Making one raises ConversionError where a number is beyond what `precision` can hold.
    """
    import torch

    dtype = getattr(torch, DTYPES[precision])
    for tensor in weights:
        if not tensor.dtype.is_floating_point:
            yield tensor
        else:
            yield LazyTensor(tensor.name, dtype, tensor.shape, partial(_made_as, tensor, dtype))


def _made_as(tensor: LazyTensor, dtype: torch.dtype) -> torch.Tensor:
    made = tensor.make()
    cast = made.to(dtype)
    if dtype.itemsize < made.dtype.itemsize and (cast.isinf() & ~made.isinf()).any():
        raise ConversionError(
            f"{tensor.name} has numbers up to {made.abs().max():g}, which {dtype} cannot hold",
            fix='choose another output_precision, such as "bf16" or "fp32"',
        )
    return cast


def _inner_name(name: str) -> str | None:
    """Return a tensor's name in the Hugging Face model; None where it belongs to the run alone.

    Exactly one `model.` goes: a Llama has another inside.
    """
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    if parts[0] == _DATA_PARALLEL:
        parts = parts[1:]
    return ".".join(parts[1:]) if parts[0] == _MODEL and len(parts) > 1 else None


def _is_old_buffer(name: str, tensor: torch.Tensor) -> bool:
    """Tell a constant that older releases stored. A layer's own bias has one dimension, and a causal mask has four."""
    return bool(_OLD_BUFFER.search(name)) and not (name.endswith(".bias") and tensor.dim() == 1)


def _is_same(one: LazyTensor, other: LazyTensor) -> bool:
    import torch

    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one.make(), other.make())


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
