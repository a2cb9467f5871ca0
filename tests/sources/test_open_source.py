"""From a model's URI and format to the right source."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogsmith.config.model import Format, Model
from cogsmith.errors import SourceError
from cogsmith.sources import open_source
from cogsmith.sources.gguf.source import GgufSource
from cogsmith.sources.hf_folder import HfFolderSource

from .checkpoints import NEEDED, Watcher
from .fake_hub import FakeHub
from .gguf.files import TinyGguf


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


@pytest.mark.parametrize("source", ["hf:", "hf:org/", "hf:/model", "hf:org/model/file.bin", "s3:bucket", "org/model"])
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
