"""Archives and compressed files around a checkpoint: made by the command-line programs that people use."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch

from cogsmith.errors import MissingExtra, SourceError
from cogsmith.sources.torchfile import load
from cogsmith.sources.torchfile.containers import opened

PROGRAMS = {
    "gz": ["gzip"], "bz2": ["bzip2"], "xz": ["xz"], "lzma": ["xz", "--format=lzma"], "zst": ["zstd", "-q"],
    "lz4": ["lz4", "-q"], "lzo": ["lzop"],
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file of torch's, with enough in it that every method has several blocks."""
    torch.manual_seed(0)
    torch.save({"state": {"x": torch.arange(100_000)}}, tmp_path / "whole.pt")
    return tmp_path / "whole.pt"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def compressed(path: Path, suffix: str) -> Path:
    """Compress by the program, into a file whose name says nothing."""
    program = PROGRAMS[suffix]
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    content = subprocess.run([*program, "-c", str(path)], capture_output=True, check=True).stdout
    target = path.with_name(f"blob-{suffix}")
    target.write_bytes(content)
    return target


def refused(path: Path, scratch: Path, message: str) -> SourceError:
    with pytest.raises(SourceError, match=message) as caught, opened(path, scratch):
        pass
    assert list(scratch.iterdir()) == []
    return caught.value


def test_a_plain_file_is_given_as_it_is(checkpoint: Path, scratch: Path):
    with opened(checkpoint, scratch) as path:
        assert path == checkpoint


@pytest.mark.parametrize("suffix", PROGRAMS)
def test_compressed_files(checkpoint: Path, scratch: Path, suffix: str):
    with opened(compressed(checkpoint, suffix), scratch) as path:
        assert path.read_bytes() == checkpoint.read_bytes()
        kept = load(path)["state"]["x"]
    assert list(scratch.iterdir()) == []
    assert torch.equal(kept, torch.arange(100_000))


@pytest.mark.parametrize("suffix", PROGRAMS)
def test_a_file_cut_short_is_refused_wherever_it_is_cut(checkpoint: Path, scratch: Path, suffix: str):
    whole = compressed(checkpoint, suffix)
    content = whole.read_bytes()
    # An .lzma file that knows its length, and an .lz4 or .lzo without its end, differ in how little may be missing.
    for cut in (len(content) // 3, len(content) * 9 // 10, len(content) - 1):
        whole.write_bytes(content[:cut])
        refused(whole, scratch, "cannot be unpacked")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst", "lz4"])
def test_several_streams_in_one_file(checkpoint: Path, scratch: Path, suffix: str):
    content, half = checkpoint.read_bytes(), checkpoint.stat().st_size // 2
    parts = []
    for i, part in enumerate((content[:half], content[half:])):
        (checkpoint.parent / f"part{i}").write_bytes(part)
        parts.append(compressed(checkpoint.parent / f"part{i}", suffix).read_bytes())
    (checkpoint.parent / "both").write_bytes(b"".join(parts))
    with opened(checkpoint.parent / "both", scratch) as path:
        assert path.read_bytes() == content


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_composer_s_archives(checkpoint: Path, scratch: Path, mode: str):
    """As Composer writes them: a bare member for the root, then the states."""
    path = checkpoint.with_name("blob")
    with tarfile.open(path, mode) as archive:
        archive.add(checkpoint.parent, arcname="/", recursive=False)
        archive.add(checkpoint, arcname="composer_states.pt")
    with opened(path, scratch) as unpacked:
        assert torch.equal(load(unpacked)["state"]["x"], torch.arange(100_000))
        assert [file.name for file in scratch.rglob("*") if file.is_file()] == [unpacked.name]
    assert list(scratch.iterdir()) == []


def test_a_tar_in_zstd(checkpoint: Path, scratch: Path):
    with tarfile.open(checkpoint.with_name("x.tar"), "w") as archive:
        archive.add(checkpoint, arcname="composer_states.pt")
    with opened(compressed(checkpoint.with_name("x.tar"), "zst"), scratch) as unpacked:
        assert unpacked.read_bytes() == checkpoint.read_bytes()


def archive_of(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(member, io.BytesIO(content))
    return path


def test_which_member_is_taken(tmp_path: Path, scratch: Path):
    named = {"a.pt": b"first", "deep/composer_states.pt": b"states", "z.pt": b"last", "notes.txt": b"x"}
    for members, content in ((named, b"states"), ({"../../x/weights.pt": b"only", "notes.txt": b"x"}, b"only")):
        with opened(archive_of(tmp_path / "x.tar", members), scratch) as path:
            assert path.read_bytes() == content
            assert path.is_relative_to(scratch)
    assert not (tmp_path.parent / "x").exists()
    refused(archive_of(tmp_path / "x.tar", {"a.pt": b"1", "b.pt": b"2"}), scratch, r"holds: a\.pt, b\.pt")
    twice = {"composer_states.pt": b"1", "x/composer_states.pt": b"2"}
    refused(archive_of(tmp_path / "x.tar", twice), scratch, "it should hold one composer_states.pt")
    refused(archive_of(tmp_path / "x.tar", {"notes.txt": b"1"}), scratch, r"holds: notes\.txt")
    refused(archive_of(tmp_path / "x.tar", {"../../etc/x": b"1"}), scratch, "it should hold")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        refused(archive_of(tmp_path / "x.tar", {"composer_states.pt": b""}, kind), scratch, "no plain file")


def test_deepspeed_s_archive_is_named(tmp_path: Path, scratch: Path):
    members = {"composer_states.pt": b"1", "deepspeed/global_step2/mp_rank_00_model_states.pt": b"2"}
    error = refused(archive_of(tmp_path / "x.tar", members), scratch, "DeepSpeed")
    assert "zero_to_fp32.py" in (error.fix or "")


@pytest.mark.parametrize("cut", [0.3, 0.99])
def test_a_tar_cut_short(checkpoint: Path, scratch: Path, cut: float):
    path = checkpoint.with_name("x.tar")
    with tarfile.open(path, "w") as archive:
        archive.add(checkpoint, arcname="composer_states.pt")
    with path.open("r+b") as file:
        file.truncate(int(checkpoint.stat().st_size * cut))
    refused(path, scratch, "cannot be unpacked")


def test_damage_inside(checkpoint: Path, scratch: Path):
    for suffix in ("gz", "bz2", "xz"):
        path = compressed(checkpoint, suffix)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        refused(path, scratch, "cannot be unpacked")


def test_no_room(checkpoint: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(scratch)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=64 * 2**20 + 1000))
    error = refused(compressed(checkpoint, "gz"), scratch, "no room to unpack")
    assert str(scratch) in (error.fix or "")
    # The tar says beforehand how much it needs.
    big = archive_of(checkpoint.with_name("x.tar"), {"composer_states.pt": bytes(5000)})
    refused(big, scratch, "5000 more bytes are needed, and 1000 are free")


def test_what_is_not_installed_is_named(
    checkpoint: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for suffix in ("zst", "lz4"):
        path = compressed(checkpoint, suffix)
        with monkeypatch.context() as patched:
            patched.setattr("importlib.util.find_spec", lambda _: None)
            with pytest.raises(MissingExtra, match=r"zstd|lz4") as caught, opened(path, scratch):
                pass
        assert caught.value.extra == "import"
    (tmp_path / "x.lzo").write_bytes(b"\x89LZO\x00\r\n\x1a\n rest")
    monkeypatch.setenv("PATH", "")
    error = refused(tmp_path / "x.lzo", scratch, "lzop")
    assert "install lzop" in (error.fix or "")


def test_a_file_that_is_not_there(tmp_path: Path, scratch: Path):
    refused(tmp_path / "x.tar", scratch, "cannot be read")
