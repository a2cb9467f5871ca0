"""Tensors of a pickle as views of the mapped file, every place of theirs checked.

The names are those of torch 2.13's `torch/_utils.py` and `torch/storage.py`, and of older releases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cogsmith.sources.torchfile.archive import Archive
from cogsmith.sources.torchfile.globals import Known, known
from cogsmith.sources.torchfile.inert import Inert

MAX_EXPANDED = 2**28
"""Numbers in a tensor that has more of them than its storage has (`expand`): a shape costs nothing to write."""
_MAX_DIMENSIONS = 64
_MAX_SIZE = 2**62

_STORAGE_NAMES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
"""Every dtype by the name that torch prints: `torch.bfloat16`."""


@dataclass(frozen=True, slots=True)
class StorageType:
    """A class of storages; `dtype` is None for bytes without a type."""

    dtype: torch.dtype | None


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A storage's bytes: a mapped tensor of uint8, which all its tensors are views of."""

    data: torch.Tensor
    dtype: torch.dtype | None


class Storages:
    """The storages of one archive, each mapped once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._mapped: dict[str, torch.Tensor] = {}

    def persistent(self, asked: Any) -> Storage:
        """Return the storage that a pickle's persistent id names. Raises ValueError or TypeError for an odd one."""
        mark, kind, key, _, count = asked
        if type(asked) is not tuple or mark != "storage" or type(kind) is not StorageType or type(key) is not str:
            raise TypeError("its pickle asks for something from outside that is no storage")
        size = _whole(count) * (kind.dtype.itemsize if kind.dtype else 1)
        record = self._archive.storage(key)
        if record.size != size:
            raise ValueError(f"its record data/{key} has {record.size} bytes, and its pickle speaks of {size}")
        if key not in self._mapped:
            self._mapped[key] = self._map(record.start, size)
        return Storage(self._mapped[key], kind.dtype)

    def _map(self, start: int, size: int) -> torch.Tensor:
        if size == 0:
            return torch.empty(0, dtype=torch.uint8)
        window, offset = self._archive.file.part(start, size)
        return torch.frombuffer(window, dtype=torch.uint8, count=size, offset=offset)


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < _MAX_SIZE:
        raise ValueError(f"its pickle gives {str(number)[:40]} as a size")
    return number


def _view(storage: Any, offset: Any, shape: Any, strides: Any, dtype: torch.dtype | None) -> torch.Tensor:
    """Return the tensor of `shape` in `storage`; `offset` and `strides` count numbers. Raises ValueError outside it."""
    if type(storage) is not Storage or dtype is None:
        raise TypeError("its pickle makes a tensor of something that is no storage")
    if type(shape) is not tuple or type(strides) is not tuple or not len(shape) == len(strides) <= _MAX_DIMENSIONS:
        raise TypeError("its pickle gives a tensor no proper shape")
    count = math.prod(map(_whole, shape))
    there = len(storage.data) // dtype.itemsize
    last = _whole(offset) + sum((size - 1) * _whole(stride) for size, stride in zip(shape, strides, strict=True))
    if count and last >= there:
        raise ValueError(f"a tensor of shape {list(shape)} lies outside its storage of {there} numbers")
    if count > max(there, MAX_EXPANDED) or max((*shape, *strides), default=0) > _MAX_SIZE:
        raise ValueError(f"a tensor of shape {list(shape)} is made of {there} numbers")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return storage.data[: there * dtype.itemsize].view(dtype).as_strided(shape, strides, offset)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> torch.Tensor:
    """`_rebuild_tensor` and `_rebuild_tensor_v2`: `rest` is requires_grad, hooks, and metadata where there is any."""
    _refuse_flags(rest[2:3])
    return _view(storage, offset, shape, strides, storage.dtype)


def _tensor_v3(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> torch.Tensor:
    """`_rebuild_tensor_v3`: its third further argument is the dtype, for those that have no storage class."""
    _refuse_flags(rest[3:4])
    dtype = rest[2]
    if not isinstance(dtype, torch.dtype):
        raise TypeError("its pickle gives a tensor no dtype")
    return _view(storage, offset, shape, strides, dtype)


def _refuse_flags(metadata: tuple[Any, ...]) -> None:
    if metadata and metadata[0]:
        raise ValueError("a tensor is a conjugated or negated view, which no weight is")


def _parameter(data: Any, *rest: Any) -> Any:
    """`_rebuild_parameter`, with or without state: the tensor in it. What is around it is the trainer's."""
    if not isinstance(data, (torch.Tensor, Inert)):
        raise TypeError("its pickle makes a parameter of something that is no tensor")
    return data


def _from_type(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """`_rebuild_from_type_v2`: a tensor with attributes is the tensor; one of a class of its own is inert."""
    plain = type(kind) is Inert and kind.path in ("torch.Tensor", "torch.nn.parameter.Parameter")
    if plain and type(function) is Known and function.path in _TENSOR_FUNCTIONS and type(args) is tuple:
        return function.call(*args)
    return Inert("torch._tensor", "_rebuild_from_type_v2", (function, kind, args, state))


def _size(numbers: Any = ()) -> tuple[int, ...]:
    if type(numbers) not in (tuple, list):
        raise TypeError("its pickle makes a torch.Size of something that is no tuple")
    return tuple(map(_whole, numbers))


_TENSOR_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_TENSOR_FUNCTIONS,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": _size,
}

KNOWN: dict[tuple[str, str], Any] = {
    **{("torch", name.removeprefix("torch.")): dtype for name, dtype in DTYPES.items()},
    **{
        (module, f"{name}Storage"): StorageType(dtype)
        for module in ("torch", "torch.cuda")
        for name, dtype in _STORAGE_NAMES.items()
    },
    **{(module, "UntypedStorage"): StorageType(None) for module in ("torch", "torch.storage")},
    **known(_FUNCTIONS),
}
"""torch's own names and what they stand for here."""
