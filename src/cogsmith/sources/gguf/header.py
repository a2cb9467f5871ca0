"""The header of a GGUF file: metadata and the table of tensors, without their data.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Planning a
build needs no more than the header, so this reader uses the standard library only and takes well under a second
where the `gguf` package (needed for the weights later) takes several. Every length in the file is checked
against the file's end before it is believed.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogsmith.errors import SourceError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's value types of fixed size, as `struct` formats."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One row of the tensor table. `shape` has the fastest dimension first; `offset` counts from the data's start."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says about itself. `size` is the file's, in bytes; `data_start` is where tensors begin."""

    path: Path
    size: int
    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    data_start: int

    @property
    def architecture(self) -> str:
        """The model family in GGUF's words, such as "llama"."""
        return str(self.metadata["general.architecture"])

    @property
    def parameters(self) -> int:
        """Number of weights in all tensors."""
        return sum(tensor.elements for tensor in self.tensors)


class _Cursor:
    """Reads values one after the other; `position` is the next byte."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def take(self, form: str) -> tuple[Any, ...]:
        """Return what the `struct` format `form` describes. Raises struct.error at the end of the data."""
        values = struct.unpack_from("<" + form, self.data, self.position)
        self.position += struct.calcsize("<" + form)
        return values

    def string(self) -> str:
        """Return a length-prefixed UTF-8 string."""
        (length,) = self.take("Q")
        end = self.position + length
        if end > len(self.data):
            raise struct.error(f"a string of {length} bytes at {self.position}")
        text = self.data[self.position : end].decode("utf-8")
        self.position = end
        return text

    def value(self) -> Any:
        """Return a typed metadata value."""
        (kind,) = self.take("I")
        return self.array() if kind == _ARRAY else self.item(kind)

    def array(self) -> list[Any]:
        """Return an array of scalars or of strings."""
        kind, count = self.take("IQ")
        if kind in _SCALARS:
            return list(self.take(f"{count}{_SCALARS[kind]}"))
        return [self.item(kind) for _ in range(count)]

    def item(self, kind: int) -> Any:
        """Return one scalar or string of GGUF value type `kind`. Raises ValueError for others."""
        if kind == _STRING:
            return self.string()
        if kind not in _SCALARS:
            raise ValueError(f"metadata of unknown type {kind}")
        return self.take(_SCALARS[kind])[0]

    def tensor(self) -> TensorInfo:
        """Return one row of the tensor table."""
        name = self.string()
        (dimensions,) = self.take("I")
        shape = self.take(f"{dimensions}Q")
        ggml_type, offset = self.take("IQ")
        return TensorInfo(name, shape, ggml_type, offset)


def read_header(path: Path) -> Header:
    """Read the header of the GGUF file at `path`. Raises SourceError if it is missing, no GGUF, cut off or damaged."""
    try:
        with path.open("rb") as file:
            _check_magic(path, file.read(len(MAGIC)))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, data)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error}", fix="check the path and its permissions") from error
    except struct.error as error:
        raise SourceError(
            f"{path} ends inside its header, after {path.stat().st_size} bytes", fix="fetch the file again"
        ) from error
    except (ValueError, KeyError) as error:
        raise SourceError(f"{path} has a damaged GGUF header: {error}", fix="fetch the file again") from error


def _check_magic(path: Path, first: bytes) -> None:
    if first != MAGIC:
        raise SourceError(
            f"{path} is not a GGUF file: it begins with {first!r}, not {MAGIC!r}",
            fix="name the .gguf file itself; a Git LFS pointer must be fetched first",
        )


def _parse(path: Path, data: mmap.mmap) -> Header:
    cursor = _Cursor(data)
    cursor.position = len(MAGIC)
    (version,) = cursor.take("I")
    if version not in _VERSIONS:
        raise ValueError(f"version {version}, while {' and '.join(map(str, _VERSIONS))} (little-endian) can be read")
    tensor_count, value_count = cursor.take("QQ")
    metadata = {cursor.string(): cursor.value() for _ in range(value_count)}
    tensors = tuple(cursor.tensor() for _ in range(tensor_count))
    if "general.architecture" not in metadata:
        raise ValueError("it does not say general.architecture")
    alignment = metadata.get("general.alignment", 32)
    data_start = math.ceil(cursor.position / alignment) * alignment
    return Header(path, len(data), metadata, tensors, data_start)
