"""The cache folder, folders that appear whole, and remembered digests."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cogsmith.cache import atomic_folder, cache_root, write_atomically
from cogsmith.errors import SourceError
from cogsmith.sources.base import SourceFile
from cogsmith.sources.hashing import checked_sha256, sha256_file

from .sources.checkpoints import Watcher

LONG_AGO = 10**18


def test_cache_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("COGSMITH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == tmp_path / ".cache/cogsmith"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/cogsmith")
    monkeypatch.setenv("COGSMITH_CACHE", "~/mine")
    assert cache_root() == tmp_path / "mine"


def test_folder_appears_whole(tmp_path: Path):
    target = tmp_path / "deep" / "target"
    with atomic_folder(target) as partial:
        (partial / "file").write_text("content")
        assert not target.exists()
    assert (target / "file").read_text() == "content"
    assert os.listdir(target.parent) == ["target"]
    assert target.stat().st_mode & 0o777 == (tmp_path / "deep").stat().st_mode & 0o777


def test_failure_leaves_nothing(tmp_path: Path):
    def fill() -> None:
        with atomic_folder(tmp_path / "target") as partial:
            (partial / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert os.listdir(tmp_path) == []


def test_the_faster_process_wins(tmp_path: Path):
    target = tmp_path / "target"
    with atomic_folder(target) as slow:
        (slow / "who").write_text("slow")
        with atomic_folder(target) as fast:
            (fast / "who").write_text("fast")
    assert (target / "who").read_text() == "fast"
    assert os.listdir(tmp_path) == ["target"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    code = (
        "import os, sys, pathlib; from cogsmith.cache import atomic_folder\n"
        "with atomic_folder(pathlib.Path(sys.argv[1])) as partial:\n"
        "    (partial / 'file').write_text('half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "target")], check=False).returncode == 9
    assert len(os.listdir(tmp_path)) == 1
    other_host = tmp_path / f".target.partial.not-{platform.node()}.1.x"
    other_host.mkdir()
    with atomic_folder(tmp_path / "target"), atomic_folder(tmp_path / "target"):
        pass
    assert sorted(os.listdir(tmp_path)) == [other_host.name, "target"]


def test_what_a_killed_write_left_is_removed(tmp_path: Path):
    code = (
        "import os, sys, pathlib; from cogsmith.cache import write_atomically\n"
        "pathlib.Path.replace = lambda *_: os._exit(9)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), b'half')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "target")], check=False).returncode == 9
    assert len(os.listdir(tmp_path)) == 1
    write_atomically(tmp_path / "target", b"whole")
    assert os.listdir(tmp_path) == ["target"]


def old_file(path: Path, content: bytes, mtime_ns: int = LONG_AGO) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "hashes").rglob("*") if path.is_file()]


def test_digest_is_remembered_until_the_file_changes(tmp_path: Path):
    file = old_file(tmp_path / "file", b"one")
    digest = sha256_file(file, cache=tmp_path / "cache")
    assert digest == hashlib.sha256(b"one").hexdigest()
    (entry,) = entries(tmp_path / "cache")
    entry.write_text("0" * 64)
    assert sha256_file(file, cache=tmp_path / "cache") == "0" * 64, "the file was hashed again"
    old_file(file, b"two", LONG_AGO + 1)
    assert sha256_file(file, cache=tmp_path / "cache") == hashlib.sha256(b"two").hexdigest()


def test_a_hard_link_is_not_hashed_again(tmp_path: Path):
    file = old_file(tmp_path / "file", b"one")
    digest = sha256_file(file, cache=tmp_path / "cache")
    (tmp_path / "link").hardlink_to(file)
    assert sha256_file(tmp_path / "link", cache=tmp_path / "cache") == digest
    assert len(entries(tmp_path / "cache")) == 1


@pytest.mark.parametrize("damage", [b"", b"abc", b"Z" * 64, b"\xff" * 64, b"0" * 65])
def test_a_damaged_entry_is_no_entry(tmp_path: Path, damage: bytes):
    file = old_file(tmp_path / "file", b"one")
    digest = sha256_file(file, cache=tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    entry.write_bytes(damage)
    assert sha256_file(file, cache=tmp_path / "cache") == digest
    assert entry.read_text() == digest


def test_a_young_file_is_hashed_again(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"one")
    status = file.stat()
    sha256_file(file, cache=tmp_path / "cache")
    old_file(file, b"two", status.st_mtime_ns)
    assert sha256_file(file, cache=tmp_path / "cache") == hashlib.sha256(b"two").hexdigest()


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    file = old_file(tmp_path / "file", b"one")
    assert sha256_file(file, cache=tmp_path / "cache") == hashlib.sha256(b"one").hexdigest()


def hash_many(job: tuple[list[Path], Path]) -> list[str]:
    files, cache = job
    return [sha256_file(file, cache=cache) for file in files]


def test_concurrent_writers(tmp_path: Path):
    files = [old_file(tmp_path / str(number), bytes([number])) for number in range(40)]
    expected = [hashlib.sha256(bytes([number])).hexdigest() for number in range(40)]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        answers = pool.map(hash_many, [(files, tmp_path / "cache")] * 6)
    assert answers == [expected] * 6
    assert sorted(entry.read_text() for entry in entries(tmp_path / "cache")) == sorted(expected)


def test_big_files_report_progress(tmp_path: Path):
    size = 64 * 2**20
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(size)
    watcher = Watcher()
    sha256_file(tmp_path / "big", watcher, cache=tmp_path / "cache")
    assert (watcher.done, watcher.totals) == (size, [size])


def test_missing_file_is_an_error_with_its_path(tmp_path: Path):
    with pytest.raises(SourceError, match=r"nowhere\.bin cannot be read: No such file"):
        sha256_file(tmp_path / "nowhere.bin", cache=tmp_path / "cache")


def test_bytes_that_are_not_those_the_location_named(tmp_path: Path):
    file = old_file(tmp_path / "file", b"one")
    digest = hashlib.sha256(b"one").hexdigest()
    assert checked_sha256(file, SourceFile("file", 3), Watcher(), cache=tmp_path / "cache") == digest
    assert checked_sha256(file, SourceFile("file", 3, digest), Watcher(), cache=tmp_path / "cache") == digest
    with pytest.raises(SourceError, match=f"{digest}, expected {'a' * 64}"):
        checked_sha256(file, SourceFile("file", 3, "a" * 64), Watcher(), cache=tmp_path / "cache")
