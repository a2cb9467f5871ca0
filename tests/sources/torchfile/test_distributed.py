"""Sharded checkpoints, saved by torch.distributed.checkpoint itself; the truth is torch's own reader of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from cogsmith.errors import SourceError
from cogsmith.sources.torchfile import Inert
from cogsmith.sources.torchfile.distributed import load_sharded

from .sharded import STATE, places

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dcp.save(STATE, checkpoint_id=tmp_path / "ep0-ba2", no_dist=True)
    return tmp_path / "ep0-ba2"


def truth(folder: Path) -> Any:
    """What torch's own reader makes of a checkpoint of ours."""
    dcp_to_torch_save(folder, folder.parent / "truth.pt")
    return torch.load(folder.parent / "truth.pt", weights_only=False)


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Same structure, same types, same bits."""
    if isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), where
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs), where
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}.{i}")
    elif isinstance(ours, Inert):
        assert ours.args == (str(theirs),), where
    else:
        assert (type(ours), ours) == (type(theirs), theirs), where


@pytest.mark.parametrize("in_scratch", [False, True])
@pytest.mark.parametrize("prefix", ["", "ep0-ba2/"])
def test_a_checkpoint_is_what_torch_reads(folder: Path, tmp_path: Path, in_scratch: bool, prefix: str):
    ours = load_sharded(places(folder, prefix), scratch=tmp_path if in_scratch else None)
    assert_same(ours, truth(folder))
    assert torch.equal(ours["state"]["model"]["model.wte.weight"], STATE["state"]["model"]["model.wte.weight"])


def test_one_file_for_each_tensor(tmp_path: Path):
    writer = dcp.FileSystemWriter(tmp_path / "x", single_file_per_rank=False)
    dcp.save(STATE, storage_writer=writer, no_dist=True)
    assert len(places(tmp_path / "x")) > 50
    assert_same(load_sharded(places(tmp_path / "x")), truth(tmp_path / "x"))


def test_a_state_that_was_not_flattened(tmp_path: Path):
    planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    dcp.save({"a.b": torch.ones(3), "c": 1}, checkpoint_id=tmp_path / "x", planner=planner, no_dist=True)
    assert_same(load_sharded(places(tmp_path / "x")), {"a.b": torch.ones(3), "c": 1})


def test_only_what_is_wanted_is_read(folder: Path):
    ours = load_sharded(places(folder), wanted=lambda path: path[:2] == ("state", "optimizers"))
    assert_same(ours, {"state": {"optimizers": STATE["state"]["optimizers"]}})


# Two processes with a mesh of two: rows, columns, uneven rows, one row for two, and what both have.
WRITER = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.device_mesh import init_device_mesh
rank, store, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
whole = lambda *shape: torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
state = {"state": {"model": {
    "rows": distribute_tensor(whole(6, 5), mesh, [Shard(0)]),
    "columns": distribute_tensor(whole(4, 8).to(torch.bfloat16), mesh, [Shard(1)]),
    "uneven": distribute_tensor(whole(7, 3), mesh, [Shard(0)]),
    "one": distribute_tensor(whole(1, 3), mesh, [Shard(0)]),
    "both": distribute_tensor(whole(5), mesh, [Replicate()]),
    "plain": whole(3),
}, "epoch": 3, "names": {"a": "x"}}}
dcp.save(state, checkpoint_id=folder)
dist.destroy_process_group()
"""


def save_on_two(tmp_path: Path) -> Path:
    (tmp_path / "writer.py").write_text(WRITER)
    command = [sys.executable, str(tmp_path / "writer.py")]
    arguments = [str(tmp_path / "store"), str(tmp_path / "sharded")]
    processes = [subprocess.Popen([*command, str(rank), *arguments]) for rank in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    return tmp_path / "sharded"


@pytest.mark.slow
def test_tensors_in_pieces_of_two_processes_are_put_together(tmp_path: Path):
    folder = save_on_two(tmp_path)
    assert sorted(places(folder)) == [".metadata", "__0_0.distcp", "__1_0.distcp"]
    expected = truth(folder)
    model = expected["state"]["model"]
    assert torch.equal(model["rows"], torch.arange(30.0).reshape(6, 5))
    assert torch.equal(model["uneven"], torch.arange(21.0).reshape(7, 3))
    for scratch in (None, tmp_path):
        assert_same(load_sharded(places(folder), scratch=scratch), expected)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]

    swapped = places(folder)
    swapped["__0_0.distcp"], swapped["__1_0.distcp"] = swapped["__1_0.distcp"], swapped["__0_0.distcp"]
    with pytest.raises(SourceError, match=r"__0_0\.distcp has .* bytes in place of .*__1_0\.distcp has"):
        load_sharded(swapped)
    del swapped["__0_0.distcp"]
    with pytest.raises(SourceError, match=r"lacks __0_0\.distcp"):
        load_sharded(swapped)
