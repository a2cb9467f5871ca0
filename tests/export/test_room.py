"""What an export is said to take, by hand."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from cogsmith.errors import UserError
from cogsmith.export import room

Sizes = namedtuple("Sizes", ["n_params", "vocab_size", "heads"])
SEVEN_BILLION = Sizes(7_000_000_000, 32000, 32)
Disk = namedtuple("Disk", ["total", "used", "free"])


def test_three_copies_of_the_weights_and_what_the_sample_takes():
    weights = 3 * 4 * 7_000_000_000
    assert room.memory_needed(SEVEN_BILLION, 8, 2048, verify=False) == weights
    logits, scores = 8 * 2048 * 32000 * 4, 8 * 32 * 2048 * 2048 * 4
    assert room.memory_needed(SEVEN_BILLION, 8, 2048, verify=True) == weights + 2 * logits + 3 * scores


def test_too_little_memory_is_said_with_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "free_memory", lambda: 64 * 10**9)
    with pytest.raises(UserError, match=r"84\.00 GB needed \(3 copies of 28\.00 GB of weights\) and 64\.00 GB avail"):
        room.require(SEVEN_BILLION, 8, 2048, tmp_path, verify=False)


def test_too_little_disk_is_said_with_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "free_memory", lambda: 10**12)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: Disk(0, 0, 20 * 10**9))
    with pytest.raises(UserError, match=r"28\.07 GB to write and 20\.00 GB free"):
        room.require(SEVEN_BILLION, 1, 16, tmp_path / "not/there", verify=True)
