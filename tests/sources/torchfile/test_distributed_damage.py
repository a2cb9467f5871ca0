"""Sharded checkpoints that are damaged, mixed up, hostile or of another kind: each fault is named, and nothing runs."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from cogsmith.errors import SourceError
from cogsmith.sources.torchfile.distributed import load_sharded
from cogsmith.sources.torchfile.shards import refuse_other_shards

from .sharded import STATE, places

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dcp.save(STATE, checkpoint_id=tmp_path / "ep0-ba2", no_dist=True)
    return tmp_path / "ep0-ba2"


def test_files_that_are_missing_or_cut_short(folder: Path):
    whole = places(folder)
    for name, message in ((".metadata", "no file .metadata"), ("__0_0.distcp", r"lacks __0_0\.distcp")):
        with pytest.raises(SourceError, match=message) as caught:
            load_sharded({key: path for key, path in whole.items() if key != name})
        assert caught.value.fix
    with (folder / "__0_0.distcp").open("r+b") as file:
        file.truncate(whole["__0_0.distcp"].stat().st_size - 1)
    with pytest.raises(SourceError, match=r"cut short, or another's: __0_0\.distcp has"):
        load_sharded(whole)


def test_a_file_of_another_checkpoint(folder: Path):
    (folder / "__7_0.distcp").write_bytes(b"another's")
    with pytest.raises(SourceError, match=r"__7_0\.distcp is of another sharded checkpoint"):
        load_sharded(places(folder))


def test_a_file_of_the_same_length_with_other_tensors(tmp_path: Path):
    for name, shape in (("a", (2, 3)), ("b", (3, 2))):
        dcp.save({"x": torch.ones(shape)}, checkpoint_id=tmp_path / name, no_dist=True)
    mixed = places(tmp_path / "a") | {"__0_0.distcp": tmp_path / "b" / "__0_0.distcp"}
    with pytest.raises(SourceError, match=r"__0_0\.distcp is not the file that was saved: at x it has .*\[3, 2\]"):
        load_sharded(mixed)


def test_a_metadata_file_cut_short_or_changed(folder: Path):
    path = folder / ".metadata"
    content = path.read_bytes()
    for cut in range(0, len(content), 97):
        path.write_bytes(content[:cut])
        with pytest.raises(SourceError, match=r"\.metadata"):
            load_sharded(places(folder))


def rewritten(folder: Path, change: Callable[[Any], None]) -> dict[str, Path]:
    """Change torch's own metadata object and write it back."""
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))
    return places(folder)


def chunk(metadata: Any) -> Any:
    return metadata.state_dict_metadata["state.model.model.half"].chunks[0]


def other_size(metadata: Any) -> None:
    metadata.state_dict_metadata["state.model.model.half"].size = torch.Size([4, 4])


def moved_out(metadata: Any) -> None:
    chunk(metadata).sizes = torch.Size([4, 3])


def doubled(metadata: Any) -> None:
    metadata.state_dict_metadata["state.model.model.half"].chunks.append(chunk(metadata))


def a_path_too_far(metadata: Any) -> None:
    metadata.planner_data["state.version"] = ("state", "optimizers", 10**9)


def a_path_into_a_leaf(metadata: Any) -> None:
    metadata.planner_data["state.version"] = ("state", "model", "model.half", "x")


def another_s_place(metadata: Any) -> None:
    metadata.planner_data["state.version"] = ("state", "model", "model.half")


def no_place(metadata: Any) -> None:
    metadata.storage_data = {key: info for key, info in metadata.storage_data.items() if key.fqn != "state.version"}


def a_file_elsewhere(metadata: Any) -> None:
    for info in metadata.storage_data.values():
        info.relative_path = "../../../etc/passwd"


def a_transform(metadata: Any) -> None:
    for info in metadata.storage_data.values():
        info.transform_descriptors = ["stream.zstd/1"]


LIES = {
    other_size: "pieces of .*half do not fill it",
    moved_out: "lies outside it",
    doubled: "do not fill it",
    a_path_too_far: "no proper places",
    a_path_into_a_leaf: "lies within another value",
    another_s_place: "where another value is",
    no_place: "is not there",
    a_file_elsewhere: "lacks ../../../etc/passwd",
    a_transform: "written through .*zstd",
}


@pytest.mark.parametrize("change", LIES, ids=lambda change: change.__name__)
def test_metadata_that_lies(folder: Path, change: Callable[[Any], None]):
    with pytest.raises(SourceError, match=LIES[change]):
        load_sharded(rewritten(folder, change))


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_nothing_runs(tmp_path: Path):
    canary = tmp_path / "canary"
    dcp.save({"x": torch.ones(2), "evil": Touch(canary)}, checkpoint_id=tmp_path / "x", no_dist=True)
    canary.unlink(missing_ok=True)
    with pytest.raises(SourceError, match=r"__0_0\.distcp is refused: its pickle asks for "):
        load_sharded(places(tmp_path / "x"))
    # What is not wanted is not even read.
    assert load_sharded(places(tmp_path / "x"), wanted=lambda path: path == ("x",))["x"].tolist() == [1, 1]
    (tmp_path / "x" / ".metadata").write_bytes(pickle.dumps(Touch(canary)))
    with pytest.raises(SourceError, match=r"\.metadata is refused: its pickle asks for "):
        load_sharded(places(tmp_path / "x"))
    assert not canary.exists()
    truth_would_run = pickle.loads((tmp_path / "x" / ".metadata").read_bytes())
    assert truth_would_run is None
    assert canary.exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ep1/rank0.pt", "ep1/rank1.pt"], "FSDP before PyTorch 2"),
        (["global_step5/mp_rank_00_model_states.pt", "latest"], "DeepSpeed"),
        (["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"], "DeepSpeed"),
        (["deepspeed/x.pt", "composer_states.pt"], "DeepSpeed"),
    ],
)
def test_pieces_of_other_kinds_are_named(names: list[str], message: str):
    with pytest.raises(SourceError, match=message) as caught:
        refuse_other_shards(names)
    assert caught.value.fix
    with pytest.raises(SourceError, match=message):
        load_sharded(dict.fromkeys(names, Path("x")))


def test_other_folders_are_not_refused():
    refuse_other_shards(["ep0-ba2-rank0.pt", "latest-rank0.pt", "config.json"])
    refuse_other_shards([".metadata", "__0_0.distcp", "rank0.pt"])


def test_no_room_to_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    dcp.save({"x": torch.ones(2)}, checkpoint_id=tmp_path / "x", no_dist=True)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(SourceError, match="no room to put the sharded checkpoint together"):
        load_sharded(places(tmp_path / "x"), scratch=tmp_path)


def test_several_checkpoints_in_one_folder(folder: Path):
    shutil.copytree(folder, folder.parent / "all" / "a")
    shutil.copytree(folder, folder.parent / "all" / "b")
    with pytest.raises(SourceError, match="several sharded checkpoints"):
        load_sharded(places(folder.parent / "all"))
