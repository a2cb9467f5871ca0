"""Pickles and archives made by hand, as no honest program writes them."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path


def text(value: str) -> bytes:
    """A string, pushed by BINUNICODE."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """An int, pushed by LONG1."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def named(module: str, name: str) -> bytes:
    """A global, pushed by the opcode of protocols 0 to 3."""
    return f"c{module}\n{name}\n".encode()


def stack_named(module: str, name: str) -> bytes:
    """A global, pushed by STACK_GLOBAL of protocol 4, whose name may have dots."""
    return text(module) + text(name) + b"\x93"


def called(function: bytes, *args: bytes) -> bytes:
    """A call by REDUCE."""
    return function + b"(" + b"".join(args) + b"tR"


def pickled(body: bytes, protocol: int = 2) -> bytes:
    """A whole pickle that leaves `body`'s value."""
    return (bytes([0x80, protocol]) if protocol >= 2 else b"") + body + b"."


def storage(kind: bytes, key: str, count: int) -> bytes:
    """A persistent id as torch writes them."""
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(count: int, offset: int, shape: bytes, strides: bytes, key: str = "0") -> bytes:
    """A float32 tensor; `shape` and `strides` are pickled tuples."""
    kind = named("torch", "FloatStorage")
    hooks = called(named("collections", "OrderedDict"))
    function = named("torch._utils", "_rebuild_tensor_v2")
    return called(function, storage(kind, key, count), number(offset), shape, strides, b"\x89", hooks)


def whole(*numbers: int) -> bytes:
    """A tuple of ints."""
    return b"(" + b"".join(number(value) for value in numbers) + b"t"


def archive(path: Path, pickle: bytes, records: Mapping[str, bytes] | None = None, folder: str = "archive") -> Path:
    """Write a zip like torch's at `path` and return it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as content:
        content.writestr(f"{folder}/data.pkl", pickle)
        for name, data in (records or {}).items():
            content.writestr(f"{folder}/{name}", data)
    return path
