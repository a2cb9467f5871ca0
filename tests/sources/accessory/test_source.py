"""The importer behind `source = …`: recognised, converted once, checked."""

from __future__ import annotations

import pytest

from cogsmith.config.model import Model
from cogsmith.errors import ConversionError, SourceError
from cogsmith.sources import open_source
from cogsmith.sources.silent import Silent

from .folders import DATA, change_json, copy
from .test_logits import check


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COGSMITH_CACHE", str(tmp_path / "cache"))


def materialised(folders, target, **keys):
    """Build's first half; return the folder's files laid out in `target`."""
    first, *further = (f"path:{folder}" for folder in folders)
    source = open_source(Model(name="m", source=first, further_sources=tuple(further), **keys))
    resolved = source.resolve()
    assert resolved.format == "accessory"
    checkpoint = source.materialise(resolved, Silent())
    target.mkdir()
    for file in checkpoint.files:
        (target / file.path).symlink_to(file.origin)
    return target


@pytest.mark.parametrize("case", ["llama", "mixtral", "falcon"])
def test_a_folder_is_recognised_and_converted(case, tmp_path):
    folder = copy(case, tmp_path / "in")
    check(materialised([folder], tmp_path / "out", output_precision="fp32"), case)


def test_a_base_and_a_delta(tmp_path):
    check(materialised([DATA / "meta", DATA / "delta"], tmp_path / "out", output_precision="fp32"), "delta")


def test_a_second_build_converts_nothing(tmp_path):
    folder = copy("llama", tmp_path / "in")
    first = materialised([folder], tmp_path / "first")
    written = (first / "model.safetensors").stat()
    again = (materialised([folder], tmp_path / "again") / "model.safetensors").stat()
    assert (again.st_ino, again.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_nothing_is_kept_of_what_could_not_be_converted(tmp_path):
    folder = copy("llama", tmp_path / "in")
    change_json(folder / "config.json", n_layers=3)
    with pytest.raises((SourceError, ConversionError), match=r"layers\.2\.attention_norm\.weight"):
        materialised([folder], tmp_path / "out")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".safetensors", ".json")] == []
