"""Tiny checkpoints as bytes, and a Reporter that remembers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from cogsmith.sources.base import Task


def safetensors(**tensors: tuple[int, ...]) -> bytes:
    """Return a safetensors file of fp32 tensors with the given shapes; each holds its own pattern."""
    header, data = {}, b""
    for number, (name, shape) in enumerate(tensors.items()):
        count = 1
        for size in shape:
            count *= size
        part = struct.pack("<f", number + 0.5) * count
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    return raw_safetensors(header, data)


def raw_safetensors(header: object, data: bytes) -> bytes:
    """Return a safetensors file with any header, sound or not."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def to_json(content: object) -> bytes:
    """Return a JSON file."""
    return json.dumps(content).encode()


CONFIG = to_json({"model_type": "llama"})
NEEDED = {
    "config.json": CONFIG,
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"model_max_length": 64}',
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
    "tokenizer.model": b"sentencepiece",
    "model.safetensors": safetensors(a=(4, 8), b=(8,)),
}
"""A checkpoint with 40 parameters."""
UNNEEDED = {
    "README.md": b"# Model",
    ".gitattributes": b"*.safetensors filter=lfs",
    "model.fp16.safetensors": safetensors(a=(1,)),
    "consolidated.safetensors": safetensors(a=(2,)),
    "pytorch_model.bin": b"pickle",
    "original/consolidated.00.pth": b"pickle",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "modeling_custom.py": b"import os",
    "image.png": b"png",
    "training_args.bin": b"pickle",
}


class Watcher:
    """A Reporter that keeps labels, totals, the sum of all advances, and notes."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.totals: list[int | None] = []
        self.done = 0
        self.notes: list[str] = []

    @contextmanager
    def task(self, label: str, total: int | None = None, *, unit: str = "bytes") -> Iterator[Task]:
        self.labels.append(label)
        self.totals.append(total)
        yield self

    def advance(self, amount: int) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        self.notes.append(text)
