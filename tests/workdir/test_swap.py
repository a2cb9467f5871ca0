"""Replacing a folder: the old one or the new one, whole, whatever happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cogsmith.workdir import swap

from .killed_swaps import FILES, generations, make


@pytest.mark.parametrize("replace", [swap.replace_folder, swap.replace_in_two_steps])
def test_new_folder_takes_the_place_and_nothing_is_left(tmp_path, replace):
    target = make(tmp_path / "model", 1)
    replace(make(swap.temporary_folder(target), 2), target)
    assert generations(target) == ["2"] * FILES
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("replace", [swap.replace_folder, swap.replace_in_two_steps])
@pytest.mark.parametrize("there", ["file", "link", "dangling link"])
def test_what_is_no_folder_is_replaced_too_and_a_link_is_not_followed(tmp_path, replace, there):
    target, elsewhere = tmp_path / "work/model", make(tmp_path / "elsewhere", 0)
    target.parent.mkdir()
    if there == "file":
        target.write_text("")
    else:
        target.symlink_to(elsewhere if there == "link" else "nowhere")
    replace(make(swap.temporary_folder(target), 1), target)
    assert not target.is_symlink()
    assert generations(target) == ["1"] * FILES
    assert list(target.parent.iterdir()) == [target]
    assert generations(elsewhere) == ["0"] * FILES


def test_first_folder_is_moved_in(tmp_path):
    target = tmp_path / "model"
    swap.replace_folder(make(swap.temporary_folder(target), 1), target)
    assert generations(target) == ["1"] * FILES
    assert list(tmp_path.iterdir()) == [target]


def test_recover_brings_a_lone_old_folder_back(tmp_path):
    make(tmp_path / ".model.old-7", 1)
    make(tmp_path / ".model.tmp-7", 2)
    swap.recover(tmp_path)
    assert generations(tmp_path / "model") == ["1"] * FILES
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_recover_leaves_foreign_files_alone(tmp_path):
    names = [".gitignore", ".lock", "model", ".model.tmp-x", ".model"]
    for name in names:
        (tmp_path / name).mkdir()
    swap.recover(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("replace", ["replace_folder", "replace_in_two_steps"])
def test_kill_at_any_moment_leaves_one_whole_folder(tmp_path, replace):
    # In a process of its own: it forks, which this one's threads, a store's library among them, need not survive.
    script = Path(__file__).with_name("killed_swaps.py")
    done = subprocess.run([sys.executable, script, tmp_path, replace], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
