"""A checkpoint that lacks something of its model, after the folder of that model: source = [BASE, CHECKPOINT]."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from cogsmith import sources
from cogsmith.config.model import Model
from cogsmith.errors import ConversionError, SourceError
from cogsmith.sources import torchfile
from cogsmith.sources.silent import Silent

from .runs import FILE, FIXTURES, RUN, assert_same, convert, edited, expected_ids

PREFIX = "model.base_model.model."


def converted(tmp_path: Path, base: Path, checkpoint: Path, **keys: object) -> Path:
    """What the whole way from the two URIs makes, in a folder."""
    model = Model("m", f"path:{base}", further_sources=(f"path:{checkpoint}",), **keys)
    source = sources.open_source(model, tmp_path / "cache")
    resolved = source.resolve()
    assert resolved.format == "composer"
    (tmp_path / "out").mkdir()
    for file in source.materialise(resolved, Silent()).files:
        (tmp_path / "out" / file.path).write_bytes(file.origin.read_bytes())
    return tmp_path / "out"


def adapter_alone(tmp_path: Path) -> Path:
    """The run with its adapter alone, as Composer saves it unless should_save_peft_only is False."""

    def drop(state: dict) -> None:
        state["model"] = {
            name: value for name, value in state["model"].items() if ".lora_" in name or ".modules_to_save." in name
        }

    return edited("lora_gpt2", tmp_path, drop)


def base_of(tmp_path: Path, shards: int = 1, drop: str = "") -> Path:
    """The model that the run began from, as a Hugging Face folder; `drop` is a part of names that it lacks."""
    whole = torchfile.load(FIXTURES / "lora_gpt2" / FILE)["state"]["model"]
    plain = {
        name.removeprefix(PREFIX).replace(".base_layer.", ".").replace(".original_module.", "."): value.clone()
        for name, value in whole.items()
        if ".lora_" not in name and ".modules_to_save." not in name
    }
    tensors = {name.removeprefix(drop): value for name, value in plain.items() if name != "lm_head.weight"}
    folder = tmp_path / "base"
    folder.mkdir()
    names = sorted(tensors)
    for number in range(shards):
        part = {name: tensors[name] for name in names[number::shards]}
        name = "model.safetensors" if shards == 1 else f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / name, {"format": "pt"})
    if shards > 1:
        index = {name: f"model-{at % shards + 1:05d}-of-{shards:05d}.safetensors" for at, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = torchfile.load(FIXTURES / "lora_gpt2" / FILE)["state"]["integrations"]["huggingface"]["model"]["config"]
    (folder / "config.json").write_text(json.dumps(config["content"] | {"architectures": ["GPT2LMHeadModel"]}))
    return folder


@pytest.mark.parametrize(("shards", "drop"), [(1, ""), (3, ""), (1, "transformer.")])
def test_an_adapter_and_its_base_compute_what_the_run_did(shards: int, drop: str, tmp_path: Path):
    out = converted(tmp_path, base_of(tmp_path, shards, drop), adapter_alone(tmp_path) / FILE)
    assert_same(out, "lora_gpt2")


def test_a_base_of_another_size_is_refused(tmp_path: Path):
    base = base_of(tmp_path)
    tensors = load_file(base / "model.safetensors")
    tensors["transformer.h.0.attn.c_attn.weight"] = torch.zeros(4, 12)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConversionError, match="do not fit its weights'"):
        converted(tmp_path, base, adapter_alone(tmp_path) / FILE)


def test_a_base_of_another_model_lacks_what_is_adapted(tmp_path: Path):
    base = base_of(tmp_path)
    save_file({"model.embed_tokens.weight": torch.zeros(4, 4)}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConversionError, match=r"holds the adapter alone, and not transformer\.h\.0") as caught:
        converted(tmp_path, base, adapter_alone(tmp_path) / FILE)
    assert "source = [BASE, CHECKPOINT]" in str(caught.value.fix)


def test_a_base_lacks_a_shard_or_its_config(tmp_path: Path):
    base, adapter = base_of(tmp_path, 3), adapter_alone(tmp_path)
    (base / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(SourceError, match="has 2 shards of 3"):
        converted(tmp_path, base, adapter / FILE, format="composer")
    (base / "config.json").unlink()
    with pytest.raises(SourceError, match=r"has no config\.json") as caught:
        converted(tmp_path, base, adapter / FILE, format="composer")
    assert "source = [BASE, CHECKPOINT]" in str(caught.value.fix)


def weights_only(tmp_path: Path) -> Path:
    """As Composer 0.13.5 saves with save_weights_only: the weights, and not a word of which model they are."""
    return edited(RUN, tmp_path, lambda state: state.pop("integrations"))


def stated(tmp_path: Path) -> Path:
    """A folder with what such a file lacks: config.json and a tokenizer, and no weights."""
    whole = convert(FIXTURES / RUN, tmp_path / "stated")
    (whole / "model.safetensors").unlink()
    return whole


def test_weights_alone_after_a_folder_that_says_what_they_are(tmp_path: Path):
    out = converted(tmp_path, stated(tmp_path), weights_only(tmp_path) / FILE, format="composer")
    assert_same(out, RUN)
    tokenizer = AutoTokenizer.from_pretrained(out)
    for text, ids in expected_ids(RUN).items():
        assert tokenizer(text)["input_ids"] == ids


def test_weights_alone_name_what_they_need(tmp_path: Path):
    run = weights_only(tmp_path)
    with pytest.raises(SourceError, match="does not say which Hugging Face model it is") as caught:
        convert(run, tmp_path / "refused")
    assert "source = [FOLDER, CHECKPOINT]" in str(caught.value.fix)


def test_weights_that_are_not_the_folders_are_refused(tmp_path: Path):
    folder = stated(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_embd": config["n_embd"] * 2}))
    with pytest.raises(ConversionError, match="has the shape"):
        converted(tmp_path, folder, weights_only(tmp_path) / FILE, format="composer")
