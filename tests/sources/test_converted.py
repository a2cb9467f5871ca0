"""A foreign format becomes a Hugging Face folder: once, whole, and checked. The format is a toy; the model is real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from cogsmith.config.model import Model
from cogsmith.errors import ConversionError, MissingExtra, SourceError, UserError
from cogsmith.sources.base import Checkpoint
from cogsmith.sources.converted import ConvertedSource
from cogsmith.sources.locations import locate

from . import fake_hub as fake_hub_module
from .checkpoints import Watcher
from .fake_hub import FakeHub
from .toy import ToyImporter, toy_files

REPOSITORY = Path(__file__).parents[2]
MODEL = Model("m", "hf:org/toy", format="auto")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        (folder / path).write_bytes(content)
    return folder


def opened(model: Model, cache: Path, importer: ToyImporter | None = None) -> ConvertedSource:
    places = [locate(text, cache, downloads=model.source_cache)[0] for text in model.sources]
    tokenizer = locate(model.tokenizer, cache)[0] if model.tokenizer else None
    return ConvertedSource(importer or ToyImporter(), places, model, cache, tokenizer)


def converted(model: Model, cache: Path, importer: ToyImporter | None = None) -> dict[str, Path]:
    source = opened(model, cache, importer)
    return origins(source.materialise(source.resolve(), Watcher()))


def origins(checkpoint: Checkpoint) -> dict[str, Path]:
    return {file.path: file.origin for file in checkpoint.files}


def left_in(cache: Path) -> list[Path]:
    """What conversions have left: finished folders, and pieces."""
    return list((cache / "toy").iterdir()) if (cache / "toy").exists() else []


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


def test_packages_are_asked_for_before_anything_is_fetched(fake_hub: FakeHub, cache: Path):
    fake_hub.commit("org/toy", toy_files())
    importer = ToyImporter()
    importer.packages = ("torch", "no-such-package")
    source = opened(MODEL, cache, importer)
    resolved = source.resolve()
    with pytest.raises(MissingExtra, match="Converting hf:org/toy needs packages"):
        source.materialise(resolved, Watcher())
    assert not fake_hub.fetched()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (toy_files(extra=torch.zeros(3)), "extra has no place in it"),
        (toy_files(drop="model.norm.weight"), "model.norm.weight is missing"),
    ],
)
def test_a_model_that_does_not_use_every_tensor_is_refused_and_not_kept(files, words, tmp_path: Path, cache: Path):
    model = replace(MODEL, source=f"path:{write(tmp_path / 'toy', files)}")
    with pytest.raises(ConversionError, match=words):
        converted(model, cache)
    assert left_in(cache) == []


def kernel_s_answer() -> OSError:
    """What writing to the device that is always full raises. It is opened to be written to, never replaced."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        os.write(descriptor, b"x")
    except OSError as error:
        return error
    finally:
        os.close(descriptor)
    raise AssertionError("/dev/full took a byte")


def safetensors_words() -> SafetensorError:
    return SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fault", [kernel_s_answer, safetensors_words])
def test_a_full_disk_leaves_nothing_and_says_so(fault, tmp_path: Path, cache: Path):
    model = replace(MODEL, source=f"path:{write(tmp_path / 'toy', toy_files())}")
    importer = ToyImporter()
    importer.fault = fault()
    with pytest.raises(UserError, match=f"the disk is full: path:{tmp_path}/toy could not be converted") as caught:
        converted(model, cache, importer)
    assert "COGSMITH_CACHE" in str(caught.value.fix)
    assert left_in(cache) == []
    assert set(converted(model, cache)) == {"config.json", "model.safetensors"}


def test_a_fault_of_the_importer_is_passed_on(tmp_path: Path, cache: Path):
    model = replace(MODEL, source=f"path:{write(tmp_path / 'toy', toy_files())}")
    importer = ToyImporter()
    importer.fault = ConversionError("not a toy")
    with pytest.raises(ConversionError, match="not a toy"):
        converted(model, cache, importer)
    assert left_in(cache) == []


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from sources.toy import ToyImporter
    from sources.checkpoints import Watcher
    from pathlib import Path
    from cogsmith.config.model import Model
    from cogsmith.sources.converted import ConvertedSource
    from cogsmith.sources.local import FolderLocation

    class Killed(ToyImporter):
        def convert(self, parts, options, folder, reporter):
            super().convert(parts, options, folder, reporter)
            os.kill(os.getpid(), signal.SIGKILL)

    place, cache = Path({place!r}), Path({cache!r})
    source = ConvertedSource(Killed(), [FolderLocation(place, cache)], Model("m", f"path:{{place}}"), cache)
    source.materialise(source.resolve(), Watcher())
"""


@pytest.mark.slow
def test_a_conversion_that_is_killed_leaves_nothing_that_counts(tmp_path: Path, cache: Path):
    place = write(tmp_path / "toy", toy_files())
    text = textwrap.dedent(KILLED).format(tests=str(REPOSITORY / "tests"), place=str(place), cache=str(cache))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    ended = subprocess.run([sys.executable, "-c", text], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    (piece,) = left_in(cache)
    assert piece.name.startswith(".")
    files = converted(replace(MODEL, source=f"path:{place}"), cache)
    assert [path.name for path in left_in(cache)] == [files["config.json"].parent.name]


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


def test_weights_that_change_after_they_were_listed(tmp_path: Path, cache: Path):
    place = write(tmp_path / "toy", toy_files())
    source = opened(replace(MODEL, source=f"path:{place}"), cache)
    resolved = source.resolve()
    (place / "weights.toy").write_bytes(toy_files(2.0)["weights.toy"])
    with pytest.raises(SourceError, match="changed"):
        source.materialise(resolved, Watcher())
    with pytest.raises(SourceError, match="changed"):
        opened(replace(MODEL, source=f"path:{place}"), cache).materialise(resolved, Watcher())


def test_a_download_that_is_damaged_is_not_converted(fake_hub: FakeHub, cache: Path, monkeypatch):
    """The Hub names the SHA-256 of what it keeps in LFS, as it keeps all large files."""
    monkeypatch.setattr(fake_hub_module, "LFS_SUFFIXES", (".toy",))
    fake_hub.commit("org/toy", toy_files())
    files = converted(MODEL, cache)
    (pointer,) = Path(os.environ["HF_HOME"]).rglob("weights.toy")
    pointer.resolve().write_bytes(toy_files(2.0)["weights.toy"])
    source = opened(MODEL, cache)
    with pytest.raises(SourceError, match=r"weights\.toy is damaged"):
        source.materialise(source.resolve(), Watcher())
    assert [path.name for path in left_in(cache)] == [files["config.json"].parent.name]


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
