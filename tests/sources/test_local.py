"""Folders and single files on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.hf_folder import HfFolderSource
from cogsmith.sources.hub import HubLocation, hub_cache
from cogsmith.sources.local import FileLocation, FolderLocation

from .checkpoints import CONFIG, NEEDED, UNNEEDED, Watcher, safetensors
from .fake_hub import FakeHub


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_folder_gives_the_needed_files(tmp_path: Path):
    folder = write(tmp_path / "model", NEEDED | UNNEEDED)
    source = HfFolderSource(FolderLocation(folder, tmp_path / "cache"), tmp_path / "cache")
    resolved = source.resolve()
    checkpoint = source.materialise(resolved, Watcher())
    assert {file.path: file.origin.read_bytes() for file in checkpoint.files} == NEEDED
    assert {file.path: file.sha256 for file in checkpoint.files} == {
        path: hashlib.sha256(content).hexdigest() for path, content in NEEDED.items()
    }
    assert resolved.uri == f"path:{folder}"
    assert resolved.parameters == 40
    assert resolved.bytes_to_fetch == 0


def test_fingerprint_follows_content_and_names_only(tmp_path: Path):
    def revision(name: str, files: dict[str, bytes]) -> str:
        return FolderLocation(write(tmp_path / name, files), tmp_path / "cache").list()[0]

    base = revision("a", {"x": b"1", "y": b"2"})
    assert base.startswith("sha256:")
    assert base == revision("b", {"y": b"2", "x": b"1", ".git/config": b"hidden"})
    others = [revision("c", {"x": b"1", "z": b"2"}), revision("d", {"x": b"1", "y": b"3"}), revision("e", {"x": b"1"})]
    assert len({base, *others}) == 4


def test_a_file_that_changes_after_resolving_is_refused(tmp_path: Path):
    folder = write(tmp_path / "model", NEEDED)
    source = HfFolderSource(FolderLocation(folder, tmp_path / "cache"), tmp_path / "cache")
    resolved = source.resolve()
    (folder / "tokenizer.json").write_bytes(b'{"version": "9.9"}')
    with pytest.raises(SourceError, match=r"tokenizer\.json changed since"):
        source.materialise(resolved, Watcher())


def test_snapshot_of_the_hub_cache_is_a_folder(fake_hub: FakeHub, tmp_path: Path):
    sha = fake_hub.commit("org/model", NEEDED)
    online = HfFolderSource(HubLocation("org/model"), tmp_path / "cache")
    online.materialise(online.resolve(), Watcher())
    snapshot = hub_cache() / "models--org--model" / "snapshots" / sha
    assert (snapshot / "config.json").is_symlink()
    local = HfFolderSource(FolderLocation(snapshot, tmp_path / "cache"), tmp_path / "cache")
    checkpoint = local.materialise(local.resolve(), Watcher())
    assert {file.path: file.origin.read_bytes() for file in checkpoint.files} == NEEDED
    assert not any(file.origin.is_symlink() for file in checkpoint.files)


def test_all_bad_links_are_named_at_once(tmp_path: Path):
    folder = write(tmp_path / "model", NEEDED)
    outside = write(tmp_path / "elsewhere", {"secret": b"key"})
    (folder / "merges.txt").symlink_to(outside / "secret")
    (folder / "vocab.json").symlink_to("nowhere.json")
    (folder / "loop").symlink_to("loop")
    (folder / "more").symlink_to(folder / "additional_chat_templates")
    with pytest.raises(SourceError) as caught:
        FolderLocation(folder, tmp_path / "cache").list()
    lines = caught.value.message.splitlines()
    assert [Path(line.split()[0]).name for line in lines] == ["loop", "merges.txt", "more", "vocab.json"]
    assert f"leaves the folder, to {outside / 'secret'}" in lines[1]
    assert "nowhere.json, which is not there" in lines[3]


def test_links_inside_the_folder_are_followed(tmp_path: Path):
    folder = write(tmp_path / "model", NEEDED)
    (folder / "model.safetensors").rename(folder / "weights.data")
    (folder / "model.safetensors").symlink_to("weights.data")
    source = HfFolderSource(FolderLocation(folder, tmp_path / "cache"), tmp_path / "cache")
    by_path = {file.path: file for file in source.materialise(source.resolve(), Watcher()).files}
    assert by_path["model.safetensors"].origin == folder / "weights.data"


@pytest.mark.parametrize("kind", [FolderLocation, FileLocation])
def test_a_path_that_is_not_there(tmp_path: Path, kind: type[FolderLocation] | type[FileLocation]):
    with pytest.raises(SourceError, match=r"missing\.gguf does not exist"):
        kind(tmp_path / "missing.gguf", tmp_path / "cache").list()


def test_single_file(tmp_path: Path):
    write(tmp_path, {"a/model.gguf": b"GGUF", "a/other.gguf": b"other"})
    (tmp_path / "link.gguf").symlink_to("a/model.gguf")
    location = FileLocation(tmp_path / "link.gguf", tmp_path / "cache")
    revision, files = location.list()
    assert [(file.path, file.size, file.sha256) for file in files] == [
        ("link.gguf", 4, hashlib.sha256(b"GGUF").hexdigest())
    ]
    assert location.fetch(revision, files, Watcher()) == {"link.gguf": tmp_path / "a/model.gguf"}


def test_damaged_weights_are_found_before_anything_is_made(tmp_path: Path):
    weights = safetensors(a=(4,))
    folder = write(tmp_path / "model", {"config.json": CONFIG, "model.safetensors": weights[:-1]})
    source = HfFolderSource(FolderLocation(folder, tmp_path / "cache"), tmp_path / "cache")
    with pytest.raises(SourceError, match=r"model\.safetensors is not a sound safetensors file"):
        source.resolve()
