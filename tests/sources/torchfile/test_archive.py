"""Files that are no sound zip of torch's: each is named for what it is."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cogsmith.errors import SourceError
from cogsmith.sources.torchfile import load

from .pickles import archive, pickled, tensor, whole

SOUND = pickled(tensor(2, 0, whole(2), whole(1)))


def refused(path: Path, message: str) -> str:
    """Load a file that must be refused; return the fix."""
    with pytest.raises(SourceError, match=message) as caught:
        load(path)
    assert str(path) in caught.value.message
    assert caught.value.fix
    return caught.value.fix


FOREIGN = {
    "empty": b"",
    "web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "server's message": b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>',
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "gzip": gzip.compress(b"x"),
    "GGUF": b"GGUF\3\0\0\0",
    "bare pickle": b"\x80\x04N.",
    "no zip": b"hello world",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_another_kind(tmp_path: Path, kind: str):
    (tmp_path / "x.pt").write_bytes(FOREIGN[kind])
    refused(tmp_path / "x.pt", kind)


def test_torch_s_old_formats(tmp_path: Path):
    torch.save({"x": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "old.pt", "before 1.6")
    with tarfile.open(tmp_path / "older.pt", "w") as content:
        content.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    refused(tmp_path / "older.pt", "tar archive")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_other_files_of_weights(tmp_path: Path):
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "safetensors")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "x.jit")
    assert "state_dict" in refused(tmp_path / "x.jit", "TorchScript")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as content:
        content.writestr("readme.txt", "x")
    refused(tmp_path / "x.zip", "not of torch.save")


def test_missing_and_unreadable(tmp_path: Path):
    refused(tmp_path / "nowhere.pt", "cannot be read")
    refused(tmp_path, "cannot be read")


def test_big_endian(tmp_path: Path):
    refused(archive(tmp_path / "x.pt", SOUND, {"data/0": bytes(8), "byteorder": b"big"}), "big-endian")


def test_cut_off(tmp_path: Path):
    path = tmp_path / "x.pt"
    torch.save({"x": torch.ones(100_000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "zip directory is missing")


def test_records_that_lie(tmp_path: Path):
    path = tmp_path / "x.pt"
    refused(archive(path, SOUND), "has no record data/0")
    refused(archive(path, SOUND, {"data/0": bytes(7)}), "has 7 bytes, and its pickle speaks of 8")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("archive/data.pkl", SOUND)
    refused(path, "compressed")
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("archive/data.pkl", SOUND)
        with pytest.warns(UserWarning, match="Duplicate"):
            content.writestr("archive/data.pkl", SOUND)
    refused(path, "not where its directory says")


@pytest.mark.parametrize("lie", ["size", "offset", "past the end"])
def test_records_that_share_bytes(tmp_path: Path, lie: str):
    """The directory's entry of data/1 is made to reach into, or start at, another record."""
    records = {f"data/{key}": bytes(8) for key in range(3)}
    path = archive(tmp_path / "x.pt", SOUND, records)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 92)
    if lie == "size":
        struct.pack_into("<II", content, entry + 20, 60, 60)
    elif lie == "offset":
        struct.pack_into("<I", content, entry + 42, 0)
    else:
        struct.pack_into("<II", content, entry + 20, 2**20, 2**20)
    path.write_bytes(content)
    refused(path, "not where its directory says")
