"""A checkpoint's weights written as safetensors, one tensor in memory at a time.

The format is drawn in `safetensors_file`. The `safetensors` package writes a file from tensors that are all in memory;
here the shapes are known beforehand, so the header can be written first and each tensor be made when its turn comes.
Shards and their index are as transformers names them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError
from cogsmith.sources.base import Reporter, Task
from cogsmith.sources.silent import Silent

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 5_000_000_000
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_BIN = "pytorch_model.bin"
_METADATA = {"format": "pt"}
_ALIGNMENT = 8
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "complex64": "C64",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
"""torch's names and the format's own for the same numbers."""


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor that is announced, and made when it is written. `make` may return any strides and any device."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def stored_tensors(file: Path) -> list[LazyTensor]:
    """Return the tensors of a safetensors file in the order of their bytes: mapped into memory, not read."""
    from safetensors import safe_open

    opened: Any = safe_open(file, framework="pt")

    def lazy(name: str) -> LazyTensor:
        tensor = opened.get_tensor(name)
        return LazyTensor(name, tensor.dtype, tuple(tensor.shape), lambda: tensor)

    return [lazy(name) for name in opened.offset_keys()]


def write_checkpoint(
    folder: Path,
    tensors: Iterable[LazyTensor],
    *,
    shard_bytes: int = SHARD_BYTES,
    reporter: Reporter | None = None,
) -> tuple[Path, ...]:
    """Write `tensors` into `folder` as model.safetensors, or as shards of `shard_bytes` at most with their index.

    Returns the files. A tensor bigger than a shard has one of its own. Tensors are made one after the other, those of
    wide numbers first in each shard, so that all lie aligned. Raises ConversionError where two have one name, one has
    numbers that the format does not know, or one comes out other than announced; then no file of it stays.
    """
    announced = tuple(tensors)
    _check_announced(announced)
    shards = _shards(announced, shard_bytes)
    written: list[Path] = []
    try:
        with (reporter or Silent()).task("Writing weights", sum(tensor.size for tensor in announced)) as task:
            for name, shard in shards.items():
                written.append(folder / name)
                _write_file(written[-1], shard, task)
        if len(shards) > 1:
            written.append(folder / _INDEX)
            _write_index(written[-1], shards)
    except BaseException:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise
    return tuple(written)


def write_bin(folder: Path, tensors: Iterable[LazyTensor]) -> Path:
    """Write `tensors` into `folder` as pytorch_model.bin, by torch.save; all of them are in memory at once.

    Raises ConversionError as `write_checkpoint` does.
    """
    import torch

    announced = tuple(tensors)
    _check_announced(announced)
    path = folder / _BIN
    # A clone, because torch.save writes the whole storage that a view is a part of.
    torch.save({tensor.name: _made(tensor).clone() for tensor in announced}, path)
    path.chmod(0o644)
    return path


def _check_announced(tensors: Sequence[LazyTensor]) -> None:
    names = [tensor.name for tensor in tensors]
    if not names:
        raise ConversionError("there are no tensors to write")
    double = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if double or "__metadata__" in names:
        raise ConversionError(f"more than one tensor would be named {(double or ['__metadata__'])[0]}")
    strange = [f"{tensor.name} ({tensor.dtype})" for tensor in tensors if _dtype_name(tensor) is None]
    if strange:
        raise ConversionError(f"safetensors has no such numbers: {', '.join(strange[:3])}")


def _dtype_name(tensor: LazyTensor) -> str | None:
    return _NAMES.get(str(tensor.dtype).removeprefix("torch."))


def _shards(tensors: Sequence[LazyTensor], shard_bytes: int) -> dict[str, list[LazyTensor]]:
    """Deal the tensors, in their order, into files; each file's begin with the widest numbers."""
    parts: list[list[LazyTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if parts[-1] and filled + tensor.size > shard_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(tensor)
        filled += tensor.size
    for part in parts:
        part.sort(key=lambda tensor: -tensor.dtype.itemsize)
    if len(parts) == 1:
        return {_WEIGHTS: parts[0]}
    return {f"model-{i:05d}-of-{len(parts):05d}.safetensors": part for i, part in enumerate(parts, start=1)}


def _write_file(path: Path, tensors: Sequence[LazyTensor], task: Task) -> None:
    with path.open("wb") as file:
        file.write(_header(tensors))
        for tensor in tensors:
            file.write(_bytes(_made(tensor)))
            task.advance(tensor.size)
    path.chmod(0o644)


def _header(tensors: Sequence[LazyTensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": _METADATA}
    start = 0
    for tensor in tensors:
        end = start + tensor.size
        entries[tensor.name] = {
            "dtype": _dtype_name(tensor),
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    # Spaces at the end of the header align the numbers that follow.
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _made(tensor: LazyTensor) -> torch.Tensor:
    made = tensor.make().detach()
    if made.dtype != tensor.dtype or tuple(made.shape) != tensor.shape:
        raise ConversionError(
            f"tensor {tensor.name} came out as {made.dtype} {list(made.shape)}, "
            f"and was announced as {tensor.dtype} {list(tensor.shape)}"
        )
    return made.cpu().contiguous()


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _write_index(path: Path, shards: dict[str, list[LazyTensor]]) -> None:
    tensors = [tensor for shard in shards.values() for tensor in shard]
    index = {
        "metadata": {
            "total_parameters": sum(math.prod(tensor.shape) for tensor in tensors),
            "total_size": sum(tensor.size for tensor in tensors),
        },
        "weight_map": {tensor.name: name for name, shard in shards.items() for tensor in shard},
    }
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    path.chmod(0o644)
