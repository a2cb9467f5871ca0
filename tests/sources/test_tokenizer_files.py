"""Tokenizers in the files of older releases get a tokenizer.json, and ids stay what those releases read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from cogsmith.config.model import Model, Project
from cogsmith.errors import ConversionError
from cogsmith.sources import open_source
from cogsmith.sources.hf_folder import HfFolderSource
from cogsmith.sources.local import FolderLocation
from cogsmith.sources.tokenizer_files import check_tokenizer, complete_tokenizer
from cogsmith.workdir.build import build

from .checkpoints import Watcher, safetensors

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "slow.json").read_text(encoding="utf-8"))
"""What the tokenizers of transformers 4 read, in Python; see data/make_slow.py."""
KINDS = {
    "gpt2": ("gpt2", ["gpt2/vocab.json", "gpt2/merges.txt"], None),
    "gpt2, named": ("gpt2", ["gpt2/vocab.json", "gpt2/merges.txt"], {"tokenizer_class": "GPT2Tokenizer"}),
    "bert": ("bert", ["bert/vocab.txt"], None),
    "llama": ("llama", ["llama_slow.model"], None),
    "llama, named": ("llama", ["llama_slow.model"], {"tokenizer_class": "LlamaTokenizer", "legacy": True}),
    "mistral": ("llama", ["llama_slow.model"], {"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ x }}"}),
}


def checkpoint(folder: Path, kind: str) -> Path:
    name, files, config = KINDS[kind]
    folder.mkdir()
    model_type = "mistral" if kind == "mistral" else name
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "model.safetensors").write_bytes(safetensors(a=(4,)))
    for file in files:
        target = "tokenizer.model" if file.endswith(".model") else Path(file).name
        shutil.copyfile(DATA / file, folder / target)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_ids_stay_what_they_were(tmp_path: Path, kind: str):
    folder = checkpoint(tmp_path / "model", kind)
    assert complete_tokenizer(folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    sent = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, ids in zip(GOLDEN["texts"], GOLDEN[KINDS[kind][0]], strict=True):
        assert loaded(text)["input_ids"] == ids, text
        assert sent.encode(text).ids == ids, text
    check_tokenizer(folder)


def test_what_the_config_says_is_kept(tmp_path: Path):
    folder = checkpoint(tmp_path / "model", "mistral")
    complete_tokenizer(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template == "{{ x }}"


def test_a_folder_that_is_complete_or_has_none_is_left_alone(tmp_path: Path):
    folder = checkpoint(tmp_path / "model", "gpt2")
    complete_tokenizer(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert not complete_tokenizer(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    assert not complete_tokenizer(folder)


@pytest.mark.parametrize("kind", ["gpt2", "llama, named"])
def test_a_source_brings_it_along(tmp_path: Path, kind: str):
    folder = checkpoint(tmp_path / "model", kind)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    source = HfFolderSource(FolderLocation(folder, tmp_path / "cache"), tmp_path / "cache")
    made = {file.path: file for file in source.materialise(source.resolve(), Watcher()).files}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    (tmp_path / "built").mkdir()
    for file in made.values():
        shutil.copyfile(file.origin, tmp_path / "built" / file.path)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "built")
    assert [loaded(text)["input_ids"] for text in GOLDEN["texts"]] == GOLDEN[KINDS[kind][0]]
    # The same again comes from the cache.
    watcher = Watcher()
    again = {file.path: file for file in source.materialise(source.resolve(), watcher).files}
    assert again == made
    assert watcher.labels == []


def test_a_tokenizer_json_that_is_read_otherwise_is_found(tmp_path: Path):
    folder = checkpoint(tmp_path / "model", "llama")
    complete_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"]["normalizers"].insert(0, {"type": "Replace", "pattern": {"String": "\n"}, "content": " "})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    check_tokenizer(folder)
    # This class leaves the file's normalizer out.
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(ConversionError, match="the saved tokenizer reads"):
        check_tokenizer(folder)


def test_damage_is_named(tmp_path: Path):
    folder = checkpoint(tmp_path / "model", "gpt2")
    (folder / "vocab.json").write_text("{")
    with pytest.raises(ConversionError, match="cannot load the tokenizer"):
        complete_tokenizer(folder)


def test_a_second_build_changes_nothing(tmp_path: Path):
    folder = checkpoint(tmp_path / "model", "gpt2")
    project = Project(tmp_path / "config.toml", None, {"tiny": Model("tiny", f"path:{folder}")})
    first, second = (
        build(project, reporter=Watcher(), cache=tmp_path / "cache", open_source=open_source)[0] for _ in range(2)
    )
    assert (first.plan.state, second.plan.state) == ("new", "unchanged")
    assert (tmp_path / "work/tiny/checkpoints/tokenizer.json").is_file()
    build(project, reporter=Watcher(), cache=tmp_path / "cache", open_source=open_source, frozen=True)
