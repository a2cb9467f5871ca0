"""Kills a process at random moments while it replaces a folder: python killed_swaps.py ROOT FUNCTION_OF_SWAP."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

from cogsmith.workdir import swap

FILES = 5


def make(folder: Path, generation: int) -> Path:
    folder.mkdir()
    for number in range(FILES):
        (folder / f"file-{number}").write_text(str(generation))
    return folder


def generations(folder: Path) -> list[str]:
    return [(folder / f"file-{number}").read_text() for number in range(FILES)]


def run_until_killed(target: Path, replace, first_swap: int) -> None:
    """Replace `target` again and again; write a byte to the pipe `first_swap` once it was replaced."""
    for generation in itertools.count(2):
        replace(make(swap.temporary_folder(target), generation), target)
        if generation == 2:
            os.write(first_swap, b".")


def kill_while_replacing(target: Path, replace, after: float) -> None:
    """Let a child replace `target`, and kill it so many seconds after its first time."""
    swapped, first_swap = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run_until_killed(target, replace, first_swap)
        finally:
            os._exit(1)
    os.read(swapped, 1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    os.close(swapped)
    os.close(first_swap)


def main(root: Path, name: str) -> None:
    chance, seen = random.Random(0), set()
    target = make(root / "model", 1)
    for _ in range(60):
        kill_while_replacing(target, getattr(swap, name), chance.uniform(0, 0.008))
        # In two steps the folder may be aside for a moment; recover brings it back.
        if name == "replace_folder":
            assert len(set(generations(target))) == 1
        swap.recover(root)
        assert len(set(generations(target))) == 1
        assert list(root.iterdir()) == [target]
        seen.add(generations(target)[0])
    assert len(seen) > 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
