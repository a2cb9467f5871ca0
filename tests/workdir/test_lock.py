"""cogsmith.lock: stable bytes, and differences in plain words."""

from __future__ import annotations

import json

import pytest

from cogsmith.errors import UserError
from cogsmith.workdir import lock
from cogsmith.workdir.lock import Entry, LockedFile

ENTRY = Entry("hf:a/b", "1" * 40, (LockedFile("x.json", 3, "aa"),), ("torch==2.13.0",), "sha256:00", "0.1.0")


def changed(**values) -> Entry:
    return Entry(**{name: getattr(ENTRY, name) for name in ENTRY.__struct_fields__} | values)


def test_round_trip_is_sorted_and_stable(tmp_path):
    path = tmp_path / "cogsmith.lock"
    lock.write(path, {"b": ENTRY, "a": ENTRY})
    first = path.read_bytes()
    lock.write(path, lock.read(path))
    assert path.read_bytes() == first
    assert first.endswith(b"}\n")
    assert list(json.loads(first)["models"]) == ["a", "b"]
    assert lock.read(path) == {"a": ENTRY, "b": ENTRY}
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_no_entries(tmp_path):
    assert lock.read(tmp_path / "cogsmith.lock") == {}


@pytest.mark.parametrize("text", ["", "<<<<<<< HEAD", '{"version": 1}', '{"version": 2, "models": {}}', "[]"])
def test_what_is_no_lock_is_refused(tmp_path, text):
    (tmp_path / "cogsmith.lock").write_text(text)
    with pytest.raises(UserError, match=r"cogsmith\.lock"):
        lock.read(tmp_path / "cogsmith.lock")


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (ENTRY, []),
        (changed(revision="2" * 40), [f"revision {'1' * 40} -> {'2' * 40}"]),
        (changed(source="hf:a/c"), ["source hf:a/b -> hf:a/c"]),
        (changed(cogsmith="0.2.0"), ["Cogsmith 0.1.0 -> 0.2.0"]),
        (
            changed(requirements=("torch==2.14.0",)),
            ["requirement torch==2.13.0 dropped", "requirement torch==2.14.0 added"],
        ),
        (changed(files=()), ["file x.json dropped"]),
        (changed(files=(LockedFile("x.json", 4, "aa"),)), ["file x.json: 3 -> 4 bytes"]),
        (changed(files=(LockedFile("x.json", 3, "bb"),)), ["file x.json: same size, other content"]),
        (changed(files=(*ENTRY.files, LockedFile("y", 1, "cc"))), ["file y added"]),
    ],
)
def test_diff_says_what_changed(new, words):
    assert lock.diff(ENTRY, new) == words


def test_diff_of_the_template_and_of_nothing():
    assert lock.diff(ENTRY, changed(template="sha256:01"))[0].startswith("rendered files differ")
    assert lock.diff(None, ENTRY) == ["not in the lock yet"]
