"""From a model's URI and format to the right source."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from cogsmith.config.model import Format, Model
from cogsmith.errors import SourceError
from cogsmith.quant import Quant
from cogsmith.sources import open_source
from cogsmith.sources.converted import ConvertedSource
from cogsmith.sources.gguf.source import GgufSource
from cogsmith.sources.hf_folder import HfFolderSource
from cogsmith.sources.quantise import QuantisedSource

from .checkpoints import CONFIG, NEEDED, Watcher
from .fake_hub import FakeHub
from .gguf.files import TinyGguf
from .toy import ToyImporter, toy_files


def opened(source: str, tmp_path: Path, format: Format = "auto", revision: str | None = None):
    return open_source(Model("name", source, revision=revision, format=format), tmp_path / "cache")


def test_hub_repositories(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/safe", {**NEEDED, "model.gguf": b"GGUF"})
    fake_hub.commit("org/gguf", {"README.md": b"", "sub/model.Q4.gguf": b"GGUF"})
    assert isinstance(opened("hf:org/safe", tmp_path), HfFolderSource)
    assert isinstance(opened("hf:org/gguf", tmp_path), GgufSource)
    assert isinstance(opened("hf:org/safe/model.gguf", tmp_path), GgufSource)
    assert isinstance(opened("hf:org/safe", tmp_path, "gguf"), GgufSource)


def test_a_repository_with_a_single_name(fake_hub: FakeHub, tmp_path: Path):
    sha = fake_hub.commit("gpt2", NEEDED)
    resolved = opened("hf:gpt2", tmp_path).resolve()
    assert (resolved.uri, resolved.revision) == ("hf:gpt2", sha)


def test_revision_reaches_the_hub(fake_hub: FakeHub, tmp_path: Path):
    first = fake_hub.commit("org/model", NEEDED, tag="v1")
    fake_hub.commit("org/model", {**NEEDED, "tokenizer.json": b"{}"})
    assert opened("hf:org/model", tmp_path, revision="v1").resolve().revision == first


def test_a_named_format_asks_nobody(fake_hub: FakeHub, tmp_path: Path):
    opened("hf:org/model", tmp_path, "hf")
    opened("hf:org/model/file.gguf", tmp_path)
    opened("pypi:some-weights==1.0", tmp_path)
    assert not fake_hub.requests


def test_local_paths(tmp_path: Path):
    for path, content in NEEDED.items():
        (tmp_path / "safe" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "safe" / path).write_bytes(content)
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf/model.gguf").write_bytes(b"GGUF")
    assert isinstance(opened(f"path:{tmp_path}/safe", tmp_path), HfFolderSource)
    assert isinstance(opened(f"path:{tmp_path}/gguf", tmp_path), GgufSource)
    assert isinstance(opened(f"path:{tmp_path}/gguf/model.gguf", tmp_path), GgufSource)


def test_several_gguf_files_are_listed(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/gguf", {"model.Q4.gguf": b"GGUF", "model.Q8.gguf": b"GGUF"})
    with pytest.raises(SourceError, match=r"model\.Q4\.gguf, model\.Q8\.gguf"):
        opened("hf:org/gguf", tmp_path).resolve()


@pytest.mark.parametrize(
    "source", ["hf:", "hf:org/", "hf:/model", "hf:org/model/a/../b", "s3:bucket", "org/model", "path:org/model"]
)
def test_a_uri_that_is_not_canonical(source: str, tmp_path: Path):
    with pytest.raises(SourceError, match=source):
        opened(source, tmp_path)


@pytest.mark.parametrize("source", ["hf:org/model/file.gguf", "pypi:some-weights==1.0", "path:/x/file.gguf"])
def test_a_format_that_contradicts_the_uri(source: str, tmp_path: Path):
    with pytest.raises(SourceError, match="is GGUF"):
        opened(source, tmp_path, "hf")


def test_a_gguf_that_is_not_what_the_hub_named_is_refused(fake_hub: FakeHub, tmp_path: Path):
    content = TinyGguf().write(tmp_path / "tiny.gguf").read_bytes()
    fake_hub.commit("org/gguf", {"tiny.gguf": content})
    source = opened("hf:org/gguf", tmp_path)
    source.materialise(source.resolve(), Watcher())
    (place,) = (tmp_path / "hf").rglob("blobs/*")
    place.write_bytes(content[:-1] + b"\x7f")
    with pytest.raises(SourceError, match=r"tiny\.gguf is damaged"):
        source.materialise(source.resolve(), Watcher())


def test_a_precision_that_nothing_would_give_is_refused(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/safe", NEEDED)
    with pytest.raises(SourceError, match=r"nothing converts it to output_precision = 'bf16'") as caught:
        open_source(Model("m", "hf:org/safe", output_precision="bf16"), tmp_path / "cache")
    assert "config.dtype" in str(caught.value.fix)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyImporter:
    """The one format that is converted, called as the list of sources is for."""
    importer = ToyImporter()
    importer.name = "accessory"
    monkeypatch.setattr("cogsmith.sources.importers", lambda: {"accessory": importer})
    return importer


def test_a_format_is_recognised_by_its_files_names(fake_hub: FakeHub, tmp_path: Path, toy: ToyImporter):
    config = {"config.json": CONFIG}
    fake_hub.commit("org/toy", {**toy_files(), **config, "model.gguf": b"GGUF"})
    fake_hub.commit("org/both", {**toy_files(), **NEEDED, "model.gguf": b"GGUF"})
    fake_hub.commit("org/gguf", {**config, "model.gguf": b"GGUF"})
    assert isinstance(opened("hf:org/toy", tmp_path), ConvertedSource)
    assert isinstance(opened("hf:org/both", tmp_path), HfFolderSource)
    assert isinstance(opened("hf:org/both", tmp_path, "accessory"), ConvertedSource)
    assert isinstance(opened("hf:org/toy/model.gguf", tmp_path), GgufSource)
    assert isinstance(opened("hf:org/gguf", tmp_path), GgufSource)


STRAY = {"config.json": CONFIG, "adapter_model.safetensors": b"x", "model-lora.safetensors": b"x", "sub/a.bin": b"x"}
SHARDS = {"consolidated.00-of-02.model.pth": b"x", "consolidated.01-of-02.model.pth": b"x"}
RUN = {"ep0-ba2-rank0.pt": b"x"}
WHOLE = {"model.safetensors.index.json": b"{}", "model-00001-of-00001.safetensors": b"x"}


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (SHARDS, "accessory"),
        ({"consolidated.00.pth": b"x", "params.json": b"{}"}, "accessory"),
        ({"consolidated.00-of-01.model-diff.pth": b"x"}, "accessory"),
        (RUN, "composer"),
        ({"ep0/.metadata": b"x", "ep0/__0_0.distcp": b"x"}, "composer"),
        ({**SHARDS, **WHOLE}, "hf"),
        ({**RUN, "model.safetensors": b"x"}, "hf"),
        ({}, "hf"),
    ],
    ids=["accessory", "meta", "diff", "composer", "shards", "hf and accessory", "hf and composer", "nothing whole"],
)
def test_a_stray_file_of_weights_hides_no_format(tmp_path: Path, files: dict[str, bytes], kind: str):
    for path, content in {**STRAY, **files}.items():
        (tmp_path / "model" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / path).write_bytes(content)
    source = opened(f"path:{tmp_path}/model", tmp_path)
    assert isinstance(source, HfFolderSource if kind == "hf" else ConvertedSource)
    if isinstance(source, ConvertedSource):
        assert source._importer.name == kind


def test_pickles_that_nobody_recognises_are_refused_as_before(fake_hub: FakeHub, tmp_path: Path, toy: ToyImporter):
    fake_hub.commit("org/pickle", {"config.json": CONFIG, "pytorch_model.bin": b"pickle"})
    with pytest.raises(SourceError, match="as pickle only") as caught:
        opened("hf:org/pickle", tmp_path).resolve()
    assert "allow_pickle" in str(caught.value.fix)


def test_a_key_for_a_type_of_llama_names_the_format(fake_hub: FakeHub, tmp_path: Path, toy: ToyImporter):
    fake_hub.commit("org/odd", {"consolidated.00.pth": b"x"})
    model = Model("m", "hf:org/odd", llama_type="llama")
    assert isinstance(open_source(model, tmp_path / "cache"), ConvertedSource)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"tokenizer": "hf:org/t"}, "tokenizer"),
        ({"further_sources": ("hf:org/b",)}, "several sources"),
        ({"tokenizer": "hf:org/t", "further_sources": ("hf:org/b",)}, "tokenizer, several sources"),
    ],
)
def test_keys_that_the_format_found_has_no_use_for(fake_hub: FakeHub, tmp_path: Path, toy: ToyImporter, keys, named):
    fake_hub.commit("org/safe", NEEDED)
    with pytest.raises(SourceError, match=f"is read as a Hugging Face folder, which has no use for: {named}\n"):
        open_source(Model("m", "hf:org/safe", **keys), tmp_path / "cache")


def test_everything_of_a_converted_model_reaches_its_importer(fake_hub: FakeHub, tmp_path: Path, toy: ToyImporter):
    fake_hub.commit("org/base", {f"7b/{path}": content for path, content in toy_files(1.0).items()})
    fake_hub.commit("org/delta", toy_files(2.0), tag="v1")
    fake_hub.commit("org/delta", {})
    fake_hub.commit("org/tokenizer", {"tokenizer.model": b"pieces"})
    model = Model(
        "m",
        "hf:org/base/7b",
        output_precision="bf16",
        further_sources=("hf:org/delta@v1",),
        tokenizer="hf:org/tokenizer",
        source_cache=tmp_path / "downloads",
        model_args={"max_seq_len": 16},
    )
    source = open_source(model, tmp_path / "cache")
    files = {file.path: file.origin for file in source.materialise(source.resolve(), Watcher()).files}
    assert (toy.seen.output_precision, toy.seen.max_seq_len) == ("bf16", 16)
    assert files["tokenizer.model"].read_bytes() == b"pieces"
    assert load_file(files["model.safetensors"])["model.embed_tokens.weight"].unique().tolist() == [4.0]
    assert not (tmp_path / "hf").exists()


def test_a_model_in_fewer_bits_is_converted_first(fake_hub: FakeHub, tmp_path: Path, toy: ToyImporter):
    fake_hub.commit("org/toy", toy_files())
    source = open_source(Model("m", "hf:org/toy", quant=Quant(bits=8, at="build")), tmp_path / "cache")
    assert isinstance(source, QuantisedSource)
    assert source.resolve().format == "accessory"
