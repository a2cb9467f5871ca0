"""Memory that is free, against what the kernel and a container's files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogsmith.engine import free_memory as module
from cogsmith.engine.free_memory import free_memory

MIB = 2**20


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write the files of a container's limit, in place of this machine's."""

    def write(limit: str, used: int, kept: int) -> None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(f"anon {used - kept}\nfile {kept}\ninactive_file {kept}\nslab 5\n")

    monkeypatch.setattr(module, "_CONTROL", tmp_path)
    return write


def available() -> int:
    """What the kernel says: see proc_meminfo(5)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def test_without_a_limit_it_is_the_machines(container):
    # Other programs take some and give some back meanwhile.
    assert free_memory() == pytest.approx(available(), rel=0.2)
    container("max", 100 * MIB, 10 * MIB)
    assert free_memory() == pytest.approx(available(), rel=0.2)


def test_a_limit_leaves_what_is_not_used_and_what_is_only_kept(container):
    container(str(100 * MIB), 70 * MIB, 20 * MIB)
    assert free_memory() == 50 * MIB
    container(str(10 * MIB), 30 * MIB, 0)
    assert free_memory() == 0


def test_a_limit_above_the_machine_grants_no_more_than_the_machine(container):
    container(str(2**60), 0, 0)
    assert free_memory() < 2**50
