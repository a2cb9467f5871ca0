"""Safetensors headers, against the safetensors package and against damage."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from cogsmith.errors import SourceError
from cogsmith.sources.safetensors_file import count_parameters, read_header

from .checkpoints import raw_safetensors, safetensors


def entry(start: int, end: int, *, dtype: str = "F32", shape: tuple[object, ...] | None = None) -> dict[str, object]:
    shape = ((end - start) // 4,) if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_reads_what_the_safetensors_package_writes(tmp_path: Path):
    arrays = {
        "half": numpy.zeros((3, 5), numpy.float16),
        "empty": numpy.zeros((0, 4), numpy.float32),
        "scalar": numpy.zeros((), numpy.int64),
        "flags": numpy.zeros((7,), numpy.bool_),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    tensors = read_header(tmp_path / "x.safetensors")
    assert {tensor.name: tensor.shape for tensor in tensors} == {name: array.shape for name, array in arrays.items()}
    assert count_parameters(tensors) == sum(array.size for array in arrays.values())


SOUND = safetensors(a=(2,), b=(3,))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has 0 bytes"),
        (b"\x10\0\0", "has 3 bytes"),
        (SOUND[:30], "its header alone says"),
        (SOUND[:-4], "need 20 bytes, and 16 are there"),
        (SOUND + b"\0", "need 20 bytes, and 21 are there"),
        ((2**63).to_bytes(8, "little") + b"{}", "its header alone says"),
        (raw_safetensors([], b""), "not a JSON object"),
        ((5).to_bytes(8, "little") + b"{bad}", "property name"),
        (raw_safetensors({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "'b' overlaps"),
        (raw_safetensors({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "'b' leaves a gap"),
        (raw_safetensors({"a": entry(0, 8, shape=(3,))}, bytes(8)), "'a' has 8 bytes"),
        (raw_safetensors({"a": entry(8, 0, shape=(2,))}, bytes(8)), "'a'"),
        (raw_safetensors({"a": entry(0, 4, shape=(-1,))}, bytes(4)), "impossible shape"),
        (raw_safetensors({"a": {"dtype": "F32"}}, b""), "data_offsets"),
        (raw_safetensors({"a": 3}, b""), ""),
    ],
)
def test_damage_is_named_with_the_file(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "model-00001-of-00002.safetensors"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"model-00001-of-00002\.safetensors is not a sound") as caught:
        read_header(path)
    assert reason in caught.value.message
