"""A folder, a file or a choice of a repository, against what the Hub's own client makes of the same patterns."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from cogsmith.config.model import Model
from cogsmith.errors import SourceError
from cogsmith.sources import open_source
from cogsmith.sources.locations import locate

from .checkpoints import NEEDED, Watcher
from .fake_hub import FakeHub

FILES = {
    "README.md": b"# top",
    "7b/config.json": b"{}",
    "7b/consolidated.00-of-01.model.pth": b"weights",
    "7b/consolidated.00-of-01.optimizer.pth": b"optimizer",
    "7b/deep/er.json": b"[]",
    "7b-chat/config.json": b"{1}",
    "ep0-ba2-rank0.pt": b"composer",
}


def names(location) -> list[str]:
    return sorted(file.path for file in location.list()[1])


def test_a_folder_of_a_repository(fake_hub: FakeHub, tmp_path: Path):
    sha = fake_hub.commit("org/zoo", FILES)
    location, _ = locate("hf:org/zoo/7b", tmp_path)
    revision, listed = location.list()
    assert (location.uri, revision) == ("hf:org/zoo/7b", sha)
    assert names(location) == [
        "config.json",
        "consolidated.00-of-01.model.pth",
        "consolidated.00-of-01.optimizer.pth",
        "deep/er.json",
    ]
    wanted = [file for file in listed if "optimizer" not in file.path]
    places = location.fetch(revision, wanted, Watcher())
    assert {path: place.read_bytes() for path, place in places.items()} == {
        "config.json": b"{}",
        "consolidated.00-of-01.model.pth": b"weights",
        "deep/er.json": b"[]",
    }
    assert fake_hub.fetched() == {"7b/config.json", "7b/consolidated.00-of-01.model.pth", "7b/deep/er.json"}


def test_a_file_of_a_repository(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/zoo", FILES)
    location, _ = locate("hf:org/zoo/ep0-ba2-rank0.pt", tmp_path)
    revision, listed = location.list()
    assert [(file.path, file.size) for file in listed] == [("ep0-ba2-rank0.pt", 8)]
    places = location.fetch(revision, listed, Watcher())
    assert places["ep0-ba2-rank0.pt"].read_bytes() == b"composer"
    assert fake_hub.fetched() == {"ep0-ba2-rank0.pt"}


def test_a_revision_of_a_folder(fake_hub: FakeHub, tmp_path: Path):
    first = fake_hub.commit("org/zoo", FILES, tag="v1")
    fake_hub.commit("org/zoo", {"7b/other.json": b"{}"})
    assert locate("hf:org/zoo/7b@v1", tmp_path)[0].list()[0] == first
    assert names(locate("hf:org/zoo/7b", tmp_path)[0]) == ["other.json"]


def test_a_folder_that_is_not_there(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/zoo", FILES)
    with pytest.raises(SourceError, match="has no folder or file 13b; at its top: 7b, 7b-chat, "):
        locate("hf:org/zoo/13b", tmp_path)[0].list()


@pytest.mark.parametrize("patterns", [("*.json",), ("7b/*.model.pth", "README*"), ("7b/",), ("**/er.json",)])
def test_patterns_mean_what_they_mean_at_the_hub(fake_hub: FakeHub, tmp_path: Path, patterns: tuple[str, ...]):
    fake_hub.commit("org/zoo", FILES)
    there = Path(
        snapshot_download("org/zoo", allow_patterns=list(patterns), local_dir=tmp_path / "whole", endpoint=fake_hub.url)
    )
    expected = sorted(
        path.relative_to(there).as_posix()
        for path in there.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(there).parts
    )
    assert expected
    assert names(locate("hf:org/zoo", tmp_path, patterns=patterns)[0]) == expected


def test_the_same_patterns_on_this_machine(tmp_path: Path):
    for path, content in FILES.items():
        (tmp_path / "zoo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "zoo" / path).write_bytes(content)
    location, _ = locate(f"path:{tmp_path}/zoo", tmp_path / "cache", patterns=("7b/*.json",))
    revision, _ = location.list()
    assert names(location) == ["7b/config.json", "7b/deep/er.json"]
    (tmp_path / "zoo/README.md").write_bytes(b"other")
    assert location.list()[0] == revision


def test_patterns_that_nothing_matches(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/zoo", FILES)
    for text in ("hf:org/zoo", f"path:{tmp_path}"):
        (tmp_path / "file").touch()
        with pytest.raises(SourceError, match=r"matches allow_patterns = \*\.bin"):
            locate(text, tmp_path / "cache", patterns=("*.bin",))[0].list()


def test_a_checkpoint_in_a_folder_is_read_as_any_other(fake_hub: FakeHub, tmp_path: Path):
    sha = fake_hub.commit("org/zoo", {f"sub/chat/{path}": content for path, content in NEEDED.items()} | FILES)
    source = open_source(Model("m", "hf:org/zoo/sub/chat"), tmp_path / "cache")
    resolved = source.resolve()
    assert (resolved.uri, resolved.revision, resolved.parameters) == ("hf:org/zoo/sub/chat", sha, 40)
    assert {file.path for file in source.materialise(resolved, Watcher()).files} == NEEDED.keys()


def test_only_the_patterns_files_make_the_checkpoint(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/model", NEEDED)
    model = Model("m", "hf:org/model", allow_patterns=("*.safetensors", "config.json"))
    source = open_source(model, tmp_path / "cache")
    files = source.materialise(source.resolve(), Watcher()).files
    assert {file.path for file in files} == {"config.json", "model.safetensors"}
    assert fake_hub.fetched() == {"config.json", "model.safetensors"}


def test_torch_s_own_hidden_index_is_seen_and_no_other(tmp_path: Path):
    for name in (".metadata", ".hidden", "__0_0.distcp"):
        (tmp_path / "sharded" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "sharded" / name).touch()
    assert names(locate(f"path:{tmp_path}/sharded", tmp_path / "cache")[0]) == [".metadata", "__0_0.distcp"]
