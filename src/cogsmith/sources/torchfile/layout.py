"""What the `.metadata` of a torch.distributed.checkpoint folder says: which part of which tensor lies where.

It is a pickle of torch's own dataclasses, read like any other here: they come as `Inert`, known by their names, which
have been the same since PyTorch 2.0 (`torch/distributed/checkpoint/metadata.py` and `filesystem.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cogsmith.sources.torchfile.inert import Inert
from cogsmith.sources.torchfile.machine import run
from cogsmith.sources.torchfile.reading import find

Path = tuple[str | int, ...]
_MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Piece:
    """`size` bytes from `start` of a file: a tensor of `shape`, which begins at `offsets` of the whole; or a value."""

    file: str
    start: int
    size: int
    offsets: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor, or one value of any other kind where `dtype` is None. `path` leads to it in the nested dicts."""

    name: str
    path: Path
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize if self.dtype else 0


class Layout(NamedTuple):
    """All `entries`, and the names of all `files`, those of empty tensors too."""

    entries: tuple[Entry, ...]
    files: frozenset[str]


def read_layout(pickle: bytes) -> Layout:
    """Return what `.metadata` names. Raises Harmful, or ValueError and its like for what is unsound."""
    metadata = _fields(run(pickle, find, _no_storage), "Metadata")
    paths = metadata.get("planner_data") or {}
    places = {
        (index["fqn"], index.get("offset")): _fields(info, "_StorageInfo")
        for index, info in ((_fields(key, "MetadataIndex"), info) for key, info in metadata["storage_data"].items())
    }
    entries = tuple(
        _entry(name, _path(paths.get(name, (name,))), described, places)
        for name, described in metadata["state_dict_metadata"].items()
    )
    return Layout(entries, frozenset(str(info["relative_path"]) for info in places.values()))


def _no_storage(asked: Any) -> Any:
    raise ValueError("its pickle asks for a storage, and has none")


def _fields(value: Any, name: str) -> dict[str, Any]:
    if type(value) is not Inert or value.name != name or type(value.state) is not dict:
        raise ValueError(f"it has no {name} where one belongs")
    return value.state


def _path(path: Any) -> Path:
    if type(path) is not tuple or not 0 < len(path) <= _MAX_DEPTH or not all(type(key) in (str, int) for key in path):
        raise ValueError(f"{str(path)[:80]} leads nowhere")
    return path


def _entry(name: str, path: Path, described: Any, places: dict[Any, dict[str, Any]]) -> Entry:
    if type(described) is Inert and described.name == "BytesStorageMetadata":
        return Entry(name, path, None, (), (_piece(name, places[name, None]),))
    fields = _fields(described, "TensorStorageMetadata")
    dtype, shape = _dtype(fields["properties"]), _numbers(fields["size"])
    chunks = [_fields(chunk, "ChunkStorageMetadata") for chunk in fields["chunks"]]
    pieces = [
        _piece(name, places[name, chunk["offsets"]], _numbers(chunk["offsets"]), _numbers(chunk["sizes"]))
        for chunk in chunks
        if 0 not in chunk["sizes"]
    ]
    _check_cover(name, shape, pieces)
    return Entry(name, path, dtype, shape, tuple(pieces))


def _dtype(properties: Any) -> torch.dtype:
    state = properties.state if type(properties) is Inert else None
    dtype = state.get("dtype") if type(state) is dict else state[0] if type(state) is tuple and state else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError("it does not say what a tensor's numbers are")
    return dtype


def _numbers(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"{str(values)[:80]} is no shape")
    return values


def _piece(name: str, info: dict[str, Any], offsets: tuple[int, ...] = (), shape: tuple[int, ...] = ()) -> Piece:
    if info.get("transform_descriptors"):
        raise ValueError(f"{name} was written through {info['transform_descriptors']}, which cannot be undone here")
    file, start, size = info["relative_path"], info["offset"], info["length"]
    _numbers((start, size))
    if type(file) is not str:
        raise ValueError(f"{name} lies in no file")
    return Piece(file, start, size, offsets, shape)


def _check_cover(name: str, shape: tuple[int, ...], pieces: Sequence[Piece]) -> None:
    """Check that the pieces fill the tensor, each number once."""
    for piece in pieces:
        fits = len(piece.offsets) == len(piece.shape) == len(shape)
        if not fits or any(
            at + size > whole for at, size, whole in zip(piece.offsets, piece.shape, shape, strict=True)
        ):
            raise ValueError(f"a piece of {name} lies outside it")
    if sum(math.prod(piece.shape) for piece in pieces) != math.prod(shape) or _overlap(pieces):
        raise ValueError(f"the pieces of {name} do not fill it")


def _overlap(pieces: Sequence[Piece]) -> bool:
    """Tell whether two pieces share numbers. Pieces in the order of their rows meet only near neighbours."""
    ordered = sorted((piece for piece in pieces if piece.shape), key=lambda piece: piece.offsets)
    for i, one in enumerate(ordered):
        for other in ordered[i + 1 :]:
            if other.offsets[0] >= one.offsets[0] + one.shape[0]:
                break
            spans = zip(one.offsets, one.shape, other.offsets, other.shape, strict=True)
            if all(a < b + b_size and b < a + a_size for a, a_size, b, b_size in spans):
                return True
    return False
