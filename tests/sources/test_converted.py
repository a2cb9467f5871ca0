"""A foreign format becomes a Hugging Face folder: once, whole, and checked. The format is a toy; the model is real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cogsmith.errors import SourceError

from .checkpoints import Watcher
from .conversions import MODEL, converted, left_in, opened, origins, write
from .fake_hub import FakeHub
from .toy import ToyImporter, toy_files

REPOSITORY = Path(__file__).parents[2]


def test_what_is_needed_is_named_fetched_and_converted(fake_hub: FakeHub, cache: Path):
    files = toy_files(0.5)
    sha = fake_hub.commit("org/toy", {**files, "README.md": b"x"})
    source = opened(MODEL, cache)
    resolved = source.resolve()
    assert (resolved.uri, resolved.revision, resolved.format) == ("hf:org/toy", sha, "toy")
    assert sorted(file.path for file in resolved.files) == ["shape.json", "weights.toy"]
    assert resolved.bytes_to_fetch == len(files["shape.json"]) + len(files["weights.toy"])
    assert not fake_hub.fetched()

    checkpoint = source.materialise(resolved, Watcher())

    assert fake_hub.fetched() == {"shape.json", "weights.toy"}
    folder = origins(checkpoint)["config.json"].parent
    assert set(origins(checkpoint)) == {"config.json", "model.safetensors"}
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, torch.full((8, 8), 0.5))


def test_a_second_time_nothing_is_fetched_or_converted(fake_hub: FakeHub, cache: Path):
    fake_hub.commit("org/toy", toy_files())
    first = converted(MODEL, cache)
    sent, importer = fake_hub.sent.total(), ToyImporter()
    source = opened(MODEL, cache, importer)
    resolved = source.resolve()
    assert resolved.bytes_to_fetch == 0
    assert resolved.checkpoint_bytes == sum(place.stat().st_size for place in first.values())
    assert resolved.parameters == 16 * 8 + 7 * 8 * 8 + 3 * 8
    assert origins(source.materialise(resolved, Watcher())) == first
    assert (importer.conversions, fake_hub.sent.total()) == (0, sent)


def test_the_same_weights_elsewhere_are_not_converted_again(fake_hub: FakeHub, cache: Path, tmp_path: Path):
    fake_hub.commit("org/toy", toy_files())
    first = converted(MODEL, cache)
    importer = ToyImporter()
    local = replace(MODEL, source=f"path:{write(tmp_path / 'local', toy_files())}")
    assert converted(local, cache, importer) == first
    assert importer.conversions == 0


@pytest.mark.parametrize(
    "change",
    [
        {"output_precision": "bf16"},
        {"output_precision": "fp32"},
        {"llama_type": "llama_peft"},
        {"model_args": {"max_seq_len": 16}},
        {"llama_config": "first.json"},
        {"tokenizer": "path:{}/tokenizer.model"},
    ],
)
def test_every_option_makes_another_folder(change, tmp_path: Path, cache: Path):
    (tmp_path / "first.json").write_text('{"rope_theta": 500.0}')
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    plain = replace(MODEL, source=f"path:{write(tmp_path / 'toy', toy_files())}")
    if "llama_config" in change:
        change = {"llama_config": (tmp_path / change["llama_config"],)}
    if "tokenizer" in change:
        change = {"tokenizer": change["tokenizer"].format(tmp_path)}
    changed, importer = replace(plain, **change), ToyImporter()
    converted(plain, cache)
    converted(changed, cache, importer)
    assert len(left_in(cache)) == 2
    seen = importer.seen
    assert seen is not None
    assert (seen.output_precision, seen.llama_type) == (changed.output_precision, changed.llama_type)
    assert (seen.llama_config, seen.max_seq_len) == (changed.llama_config, changed.model_args.get("max_seq_len"))


def test_the_content_of_a_llama_config_counts_and_not_its_name(tmp_path: Path, cache: Path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    plain = replace(MODEL, source=f"path:{write(tmp_path / 'toy', toy_files())}", llama_config=tuple(files))
    files[0].write_text('{"rope_theta": 500.0}')
    files[1].write_text('{"rope_theta": 600.0}')
    revisions = {opened(plain, cache).resolve().revision}
    converted(plain, cache)
    converted(replace(plain, llama_config=tuple(reversed(files))), cache)
    assert len(left_in(cache)) == 2
    files[0].write_text('{"rope_theta": 700.0}')
    revisions.add(opened(plain, cache).resolve().revision)
    converted(plain, cache)
    assert len(left_in(cache)) == 3
    assert len(revisions) == 2
    assert all(revision.startswith("sha256:") for revision in revisions)


def test_another_version_of_the_importer_or_its_packages_converts_again(tmp_path: Path, cache: Path, monkeypatch):
    model = replace(MODEL, source=f"path:{write(tmp_path / 'toy', toy_files())}")
    converted(model, cache)
    newer = ToyImporter()
    newer.version = 2
    converted(model, cache, newer)
    monkeypatch.setattr("cogsmith.sources.converted.version", lambda package: f"{package}-next")
    converted(model, cache)
    assert len(left_in(cache)) == 3


def test_several_sources_are_read_in_their_order(tmp_path: Path, cache: Path):
    base, top = write(tmp_path / "base", toy_files(1.0)), write(tmp_path / "top", toy_files(3.0))
    model = replace(MODEL, source=f"path:{base}", further_sources=(f"path:{top}",))
    resolved = opened(model, cache).resolve()
    assert (resolved.uri, resolved.further_uris) == (f"path:{base}", (f"path:{top}",))
    assert resolved.revision.startswith("sha256:")
    assert len(resolved.files) == 4

    there = converted(model, cache)["config.json"].parent
    back = converted(replace(model, source=f"path:{top}", further_sources=(f"path:{base}",)), cache)[
        "config.json"
    ].parent

    def up(folder: Path) -> float:
        return float(AutoModelForCausalLM.from_pretrained(folder).model.layers[0].mlp.up_proj.weight.detach()[0, 0])

    assert (up(there), up(back)) == (5.0, 7.0)
    (top / "weights.toy").write_bytes(toy_files(4.0)["weights.toy"])
    assert opened(model, cache).resolve().revision != resolved.revision


def test_a_tokenizer_by_hand(fake_hub: FakeHub, tmp_path: Path, cache: Path):
    fake_hub.commit("org/tokenizer", {"tokenizer.model": b"pieces", "tokenizer_config.json": b"{}", "model.bin": b"x"})
    place = write(tmp_path / "toy", toy_files())
    model = replace(MODEL, source=f"path:{place}", tokenizer="hf:org/tokenizer")
    source = opened(model, cache)
    resolved = source.resolve()
    assert {file.path for file in resolved.files} >= {"tokenizer.model", "tokenizer_config.json"}
    assert resolved.revision.startswith("sha256:")
    watcher = Watcher()
    files = origins(source.materialise(resolved, watcher))
    assert files["tokenizer.model"].read_bytes() == b"pieces"
    assert fake_hub.fetched() == {"tokenizer.model", "tokenizer_config.json"}
    assert watcher.notes == []


def test_a_tokenizer_that_is_none(tmp_path: Path, cache: Path):
    place = write(tmp_path / "toy", toy_files())
    nothing = write(tmp_path / "nothing", {"tokenizer_config.json": b"{}"})
    with pytest.raises(SourceError, match="nothing holds no tokenizer"):
        opened(replace(MODEL, source=f"path:{place}", tokenizer=f"path:{nothing}"), cache).resolve()


def test_without_a_tokenizer_there_is_a_note_every_time(tmp_path: Path, cache: Path):
    model = replace(MODEL, source=f"path:{write(tmp_path / 'toy', toy_files())}")
    for _ in range(2):
        watcher, source = Watcher(), opened(model, cache)
        source.materialise(source.resolve(), watcher)
        assert "comes without a tokenizer" in watcher.notes[0]


def test_downloads_are_kept_where_the_user_says_and_used_again(fake_hub: FakeHub, tmp_path: Path, cache: Path):
    fake_hub.commit("org/toy", toy_files())
    model = replace(MODEL, source_cache=tmp_path / "downloads")
    converted(model, cache)
    assert any((tmp_path / "downloads").rglob("weights.toy"))
    assert not list((tmp_path / "hf").rglob("weights.toy"))
    sent, gets = fake_hub.sent.total(), fake_hub.requests.copy()
    converted(model, tmp_path / "another cache")
    assert fake_hub.sent.total() == sent
    assert not [key for key in fake_hub.requests - gets if "resolve" in key]
