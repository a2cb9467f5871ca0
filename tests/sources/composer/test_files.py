"""Which files are a checkpoint, and which of several is meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.base import SourceFile
from cogsmith.sources.composer import ComposerImporter
from cogsmith.sources.importer import Listing, Options

from .runs import FILE, FIXTURES, RUN, SHARDED, assert_same, convert, source

IMPORTER = ComposerImporter()


def chosen(*paths: str) -> list[str]:
    files = tuple(SourceFile(path, 1) for path in paths)
    return [file.path for file in IMPORTER.select([Listing("s3://b/run", files)], Options())[0]]


@pytest.mark.parametrize(
    "paths",
    [
        ["ep0-ba2000-rank0.pt"],
        ["notes.txt", "run/ep12-ba3-rank0.tar.gz", "run/latest-rank0.pt"],
        ["ep0-ba1-rank0"],
        ["latest-rank0.pt.symlink"],
        ["anything.pt"],
        ["anything.pt.zst"],
        ["ep0-ba1/.metadata", "ep0-ba1/__0_0.distcp", "ep0-ba1/__1_0.distcp"],
        ["ep0-ba1/composer_metadata.json", "ep0-ba1/model/model.pt", "ep0-ba1/optim/optim.pt"],
    ],
)
def test_checkpoints_are_known_by_their_names(paths: list[str]):
    assert IMPORTER.recognises([SourceFile(path, 1) for path in paths])


@pytest.mark.parametrize(
    "paths",
    [
        ["config.json", "model.safetensors"],
        ["config.json", "pytorch_model.bin"],
        ["model.Q4_0.gguf"],
        ["consolidated.00-of-02.model.pth", "consolidated.01-of-02.model.pth", "meta.json"],
        ["weights.pt", "other.pt"],
        [],
    ],
)
def test_other_formats_are_not(paths: list[str]):
    assert not IMPORTER.recognises([SourceFile(path, 1) for path in paths])


def test_only_what_is_needed_is_fetched():
    assert chosen("ep0-ba1-rank0.pt", "config.yaml", "logs/train.log") == ["ep0-ba1-rank0.pt"]
    shards = ["ep0-ba1/.metadata", "ep0-ba1/__0_0.distcp", "ep0-ba1/__1_0.distcp"]
    assert chosen(*shards, "ep0-ba1/notes.txt") == shards
    newest = ["ep0-ba1/composer_metadata.json", "ep0-ba1/model/model.pt"]
    assert chosen(*newest, "ep0-ba1/optim/optim.pt", "ep0-ba1/resumption.pkl") == newest
    sharded = ["composer_metadata.json", "model/.metadata", "model/__0_0.distcp"]
    assert chosen(*sharded, "optim/.metadata", "optim/__0_0.distcp") == sharded


def test_the_latest_wins():
    assert chosen("ep0-ba10-rank0.pt", "ep0-ba9-rank0.pt", "latest-rank0.pt") == ["latest-rank0.pt"]
    there = ["ep0-ba9-rank0.pt", "latest-rank0.pt", "latest-rank0.pt.symlink"]
    assert chosen(*there) == ["latest-rank0.pt"]


def test_the_latest_of_several_runs():
    with pytest.raises(SourceError, match=r"2 checkpoints: one/latest-rank0\.pt, two/latest-rank0\.pt"):
        chosen("one/latest-rank0.pt", "one/ep0-ba1-rank0.pt", "two/latest-rank0.pt")


def test_several_and_no_latest():
    names = [f"ep{epoch}-ba{batch}-rank0.pt" for epoch, batch in [(0, 9), (0, 10), (1, 5)]]
    with pytest.raises(SourceError) as caught:
        chosen(*names)
    assert all(name in caught.value.message for name in names)
    assert caught.value.fix == 'name one of them: "s3://b/run/ep1-ba5-rank0.pt"'


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["ep0-ba1-rank0.pt", "ep0-ba1-rank1.pt"], "in parts, a file for each process"),
        (["ep0-ba1/rank0.pt", "ep0-ba1/rank1.pt"], "in parts, a file for each process"),
        (["ep0-ba1/__0_0.distcp", "ep0-ba1/__1_0.distcp"], "shards and no .metadata"),
        (["composer_metadata.json", "notes.txt"], "no model/ beside it"),
        (["README.md"], "no Composer checkpoint; there is: README.md"),
        ([], "no Composer checkpoint; there is: nothing"),
    ],
)
def test_what_cannot_be_read(paths: list[str], message: str):
    with pytest.raises(SourceError, match=message) as caught:
        chosen(*paths)
    assert caught.value.fix


def test_keys_of_other_formats_are_refused():
    listing = Listing("path:/run", (SourceFile(FILE, 1),))
    with pytest.raises(SourceError, match="no use for: llama_type"):
        IMPORTER.select([listing], Options(llama_type="llama"))
    with pytest.raises(SourceError, match="no use for: more than a base and a checkpoint"):
        IMPORTER.select([listing, listing, listing], Options())


def test_a_text_in_place_of_a_link(tmp_path: Path):
    """As on an object store: the text names the object, with the folder that the run saved to."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "ep0-ba1-rank0.pt").write_bytes(b"an older one")
    shutil.copyfile(FIXTURES / RUN / FILE, run / FILE)
    link = run / "latest-rank0.pt.symlink"
    link.write_text(f"runs/mine/{FILE}")
    assert_same(convert(run, tmp_path / "out"), RUN)
    link.write_text("runs/mine/ep0-ba1-rank0.pt")
    with pytest.raises(SourceError, match=r"the latest checkpoint of .* is runs/mine/ep0-ba1-rank0.pt"):
        convert(run, tmp_path / "other")


def test_a_link_to_the_latest(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "ep0-ba1-rank0.pt").write_bytes(b"an older one")
    shutil.copyfile(FIXTURES / RUN / FILE, run / FILE)
    (run / "latest-rank0.pt").symlink_to(FILE)
    assert_same(convert(run, tmp_path / "out"), RUN)


def test_a_shard_that_is_missing(tmp_path: Path):
    run = source(SHARDED, tmp_path)
    (run / "ep0-ba2" / "__0_0.distcp").rename(run / "ep0-ba2" / "__1_0.distcp")
    with pytest.raises(SourceError, match=r"__0_0\.distcp"):
        convert(run, tmp_path / "out")
