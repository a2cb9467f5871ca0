"""A work directory from weights in a foreign format: plan, build, build again, and what `--frozen` holds it to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cogsmith import sources
from cogsmith.config import load
from cogsmith.config.model import Project
from cogsmith.errors import ConversionError, LockDrift, UserError
from cogsmith.workdir import lock
from cogsmith.workdir.build import build, preview

from ..sources.checkpoints import Watcher
from ..sources.composer.runs import classify, edited
from ..sources.fake_hub import FakeHub
from ..sources.toy import ToyImporter, toy_files

CONFIG = """
[models.m]
source = ["hf:org/base", "hf:org/delta@v1"]
config = {max_seq_len = 16, dtype = "float32"}
tokenizer = "hf:org/tokenizer"
"""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyImporter:
    importer = ToyImporter()
    importer.name = "accessory"
    monkeypatch.setattr(sources, "importers", lambda: {"accessory": importer})
    return importer


@pytest.fixture
def project(fake_hub: FakeHub, tmp_path: Path, toy: ToyImporter) -> Project:
    fake_hub.commit("org/base", toy_files(1.0))
    fake_hub.commit("org/delta", toy_files(2.0), tag="v1")
    fake_hub.commit("org/tokenizer", {"tokenizer.json": b'{"version": "1.0"}'})
    (tmp_path / "config.toml").write_text(CONFIG)
    return load(tmp_path / "config.toml")


def changed(project: Project, **keys: object) -> Project:
    return replace(project, models={"m": replace(project.models["m"], **keys)})


def test_it_is_planned_before_anything_is_fetched(project: Project, fake_hub: FakeHub, toy: ToyImporter):
    (plan,) = preview(project)
    needed = 2 * sum(len(toy_files()[path]) for path in ("weights.toy", "shape.json"))
    assert plan.state == "new"
    assert plan.bytes_to_fetch == needed + len(b'{"version": "1.0"}')
    assert (plan.resolved.parameters, plan.resolved.exact) == (None, False)
    assert (toy.conversions, fake_hub.fetched()) == (0, set())


def test_it_is_built_once(project: Project, fake_hub: FakeHub, toy: ToyImporter):
    build(project, reporter=Watcher())
    (folder,) = (project.root / "work").glob("m")
    manifest = json.loads((folder / "model.json").read_text())
    entry = lock.read(project.root / lock.FILE_NAME)["m"]
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert entry.source == "hf:org/base + hf:org/delta"
    assert manifest["source"] == f"{entry.source}@{entry.revision}"
    assert entry.conversion == "accessory 1, max_seq_len = 16"
    assert manifest["model_args"] == {"dtype": "float32"}
    assert manifest["limits"]["max_context"] == 16
    sent = fake_hub.sent.total()

    (plan,) = preview(project)
    (again,) = build(project, frozen=True, reporter=Watcher())

    assert (plan.state, plan.bytes_to_fetch, plan.resolved.parameters) == ("unchanged", 0, 600)
    assert plan.resolved.exact
    assert plan.resolved.checkpoint_bytes == sum(file.size for file in entry.files)
    assert again.plan.state == "unchanged"
    assert (toy.conversions, fake_hub.sent.total()) == (1, sent)


def test_another_precision_is_another_build_and_drift(project: Project, toy: ToyImporter):
    build(project, reporter=Watcher())
    halved = changed(project, output_precision="bf16")
    with pytest.raises(
        LockDrift, match="conversion accessory 1, max_seq_len = 16 -> accessory 1, output_precision = bf16"
    ):
        build(halved, frozen=True, reporter=Watcher())
    (built,) = build(halved, reporter=Watcher())
    assert (built.plan.state, toy.conversions) == ("changed", 2)


def test_a_moved_delta_is_drift(project: Project, fake_hub: FakeHub, toy: ToyImporter):
    build(project, reporter=Watcher())
    fake_hub.commit("org/delta", toy_files(3.0), tag="v1")
    with pytest.raises(LockDrift, match="revision sha256:"):
        build(project, frozen=True, reporter=Watcher())
    build(project, reporter=Watcher())
    assert toy.conversions == 2


def test_what_cannot_be_converted_leaves_the_last_build(project: Project, fake_hub: FakeHub):
    build(project, reporter=Watcher())
    before = (project.root / "work/m/model.json").read_bytes()
    fake_hub.commit("org/base", {**toy_files(drop="model.norm.weight")})
    fake_hub.commit("org/delta", {**toy_files(drop="model.norm.weight")}, tag="v1")
    with pytest.raises(ConversionError, match=r"model\.norm\.weight is missing"):
        build(project, reporter=Watcher())
    assert (project.root / "work/m/model.json").read_bytes() == before


def test_local_sources_are_recorded_without_this_machine_s_folders(project: Project, tmp_path: Path):
    for name in ("base", "delta"):
        (tmp_path / name).mkdir()
        for path, content in toy_files().items():
            (tmp_path / name / path).write_bytes(content)
    local = changed(project, source=f"path:{tmp_path}/base", further_sources=(f"path:{tmp_path}/delta",))
    build(local, reporter=Watcher())
    assert lock.read(project.root / lock.FILE_NAME)["m"].source == "path:base + path:delta"
    assert str(tmp_path) not in (project.root / "work/m/model.json").read_text()


def test_a_classifier_is_refused_as_a_language_model_and_built_for_its_vectors(tmp_path: Path):
    run = edited("bert", tmp_path, classify)
    for task in ("causal-lm", "encoder"):
        (tmp_path / "config.toml").write_text(f'[models.m]\nsource = "{run}"\ntask = "{task}"\ncog.gpu = false\n')
        project = load(tmp_path / "config.toml")
        if task == "encoder":
            build(project, cache=tmp_path / "cache", reporter=Watcher())
            continue
        with pytest.raises(UserError, match="is a BertForSequenceClassification, which sorts texts") as caught:
            build(project, cache=tmp_path / "cache", reporter=Watcher())
        assert 'task = "encoder"' in str(caught.value.fix)
        assert not (tmp_path / "work/m").exists()
    assert (tmp_path / "work/m/checkpoints/model.safetensors").is_file()
