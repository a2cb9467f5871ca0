"""Placing a file by the cheapest way there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogsmith.workdir import link

OTHER_FILESYSTEM = Path("/dev/shm")


def test_same_filesystem_shares_the_inode(tmp_path):
    origin = tmp_path / "origin"
    origin.write_bytes(b"weights")
    assert link.place(origin, tmp_path / "target") == "hard link"
    assert (tmp_path / "target").samefile(origin)


def test_link_to_the_file_and_not_to_a_link_to_it(tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "origin").symlink_to("blob")
    link.place(tmp_path / "origin", tmp_path / "target")
    assert not (tmp_path / "target").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"weights"


def test_existing_target_is_kept(tmp_path):
    (tmp_path / "origin").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        link.place(tmp_path / "origin", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"old"


@pytest.fixture
def elsewhere(tmp_path):
    """A file on another filesystem than tmp_path."""
    if not OTHER_FILESYSTEM.is_dir() or OTHER_FILESYSTEM.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second filesystem")
    path = OTHER_FILESYSTEM / f"cogsmith-test-{os.getpid()}"
    path.write_bytes(bytes(range(256)) * 100)
    path.chmod(0o600)
    yield path
    path.unlink(missing_ok=True)


def test_other_filesystem_gets_a_readable_copy(tmp_path, elsewhere):
    previous = os.umask(0o077)
    try:
        assert link.place(elsewhere, tmp_path / "target") == "copy"
    finally:
        os.umask(previous)
    assert (tmp_path / "target").read_bytes() == elsewhere.read_bytes()
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]


def test_failed_copy_leaves_nothing(tmp_path, elsewhere):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".target.partial").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - whichever the system says
        link.place(elsewhere, folder / "target")
    assert not (folder / "target").exists()
