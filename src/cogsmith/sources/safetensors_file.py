"""Reading the header of a safetensors file, and refusing a file that is damaged.

The format: 8 bytes, little-endian, give the length of a JSON object, which maps each tensor's name to its dtype,
shape and `data_offsets` in the bytes that follow. Those ranges cover the rest of the file without gap or overlap.
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogsmith.errors import SourceError

MAX_HEADER_BYTES = 100_000_000
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's entry: `start` and `end` are bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[Tensor, ...]:
    """Return the tensors of a safetensors file in the order of their bytes.

    Raises SourceError naming the file and the fault where the file is short, overlapping or otherwise unsound.
    """
    try:
        tensors, data_bytes = _read(path)
        _check_ranges(tensors, data_bytes)
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path} is not a sound safetensors file: {_reason(error)}",
            fix="fetch or save the file again; it was probably cut short",
        ) from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    return tensors


def read_index(path: Path) -> dict[str, str]:
    """Return the file that each tensor is in, by its name, as an index of several safetensors files says.

    Raises SourceError for a file that is none, or that cannot be read.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["weight_map"])
    except (ValueError, KeyError, TypeError):
        raise SourceError(f"{path} is not an index of tensors", fix="fetch the file again") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def count_parameters(tensors: Iterable[Tensor]) -> int:
    """Return how many numbers the tensors hold together."""
    return sum(tensor.elements for tensor in tensors)


def _reason(error: Exception) -> str:
    return f"a tensor has no {error}" if isinstance(error, KeyError) else str(error)


def _read(path: Path) -> tuple[tuple[Tensor, ...], int]:
    """Return the tensors and how many bytes follow the header."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"it has {size} bytes, and its header alone says {length}")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    tensors = [_tensor(name, entry) for name, entry in header.items()]
    return tuple(sorted(tensors, key=lambda tensor: (tensor.start, tensor.end))), size - 8 - length


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    start, end = entry["data_offsets"]
    tensor = Tensor(name, entry["dtype"], tuple(entry["shape"]), start, end)
    if not all(isinstance(number, int) and number >= 0 for number in (start, end, *tensor.shape)):
        raise ValueError(f"tensor {name!r} has an impossible shape or place")
    bits = _BITS.get(tensor.dtype)
    if bits is not None and (end - start) * 8 != tensor.elements * bits:
        raise ValueError(
            f"tensor {name!r} has {end - start} bytes, which {tensor.shape} of {tensor.dtype} does not fill"
        )
    return tensor


def _check_ranges(tensors: tuple[Tensor, ...], data_bytes: int) -> None:
    reached = 0
    for tensor in tensors:
        if tensor.start != reached:
            fault = "overlaps the tensor before it" if tensor.start < reached else "leaves a gap before it"
            raise ValueError(f"tensor {tensor.name!r} {fault}")
        reached = tensor.end
    if reached != data_bytes:
        raise ValueError(f"its tensors need {reached} bytes, and {data_bytes} are there")
