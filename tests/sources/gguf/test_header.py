"""A GGUF header is read whole, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.gguf.header import read_header

from .files import HIDDEN, TinyGguf


def test_header_says_what_was_written(tmp_path: Path):
    tiny = TinyGguf(metadata={"x.list": [1, 2, 3], "x.flag": True, "x.text": "Größe", "x.number": 0.5})
    header = read_header(tiny.write(tmp_path / "tiny.gguf"))
    assert header.architecture == "llama"
    assert all(header.metadata[key] == value for key, value in tiny.metadata.items() if not isinstance(value, float))
    assert header.metadata["llama.rope.freq_base"] == 10000.0
    assert header.metadata["x.number"] == 0.5
    assert [tensor.name for tensor in header.tensors] == list(tiny.tensors)
    assert header.tensors[0].shape == (HIDDEN, len(tiny.metadata["tokenizer.ggml.tokens"]))
    assert header.parameters == sum(tiny.values(name).size for name in tiny.tensors)


def test_data_begins_where_the_header_says(tmp_path: Path):
    tiny = TinyGguf()
    path = tiny.write(tmp_path / "tiny.gguf")
    header = read_header(path)
    for tensor in header.tensors:
        data = tiny.tensors[tensor.name][0].tobytes()
        start = header.data_start + tensor.offset
        assert path.read_bytes()[start : start + len(data)] == data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file: it begins with b'vers'"),
        (b"GGUF" + (1).to_bytes(4, "little") + bytes(16), "version 1"),
        (b"GGUF" + (3).to_bytes(4, "big") + bytes(16), "little-endian"),
        (b"GGUF" + (3).to_bytes(4, "little") + bytes(16), "general.architecture"),
        (b"GGUF" + (3).to_bytes(4, "little") + (2**63).to_bytes(8, "little") * 2, "ends inside its header"),
        (b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\xff" * 8 + bytes(32), "ends inside its header"),
        (b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\1" + bytes(7) + b"k\x63\0\0\0", "unknown type 99"),
        (b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\1" + bytes(7) + b"\xff\6\0\0\0" + bytes(4), "damaged"),
    ],
)
def test_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=says) as caught:
        read_header(path)
    assert caught.value.fix


def test_missing_file(tmp_path: Path):
    with pytest.raises(SourceError, match="cannot read"):
        read_header(tmp_path / "none.gguf")
