"""Weights quantised while building: what is stored gives the logits of a model quantised in memory."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from cogsmith.config.model import Model
from cogsmith.engine.loader import load
from cogsmith.errors import ConversionError, MissingExtra, SourceError
from cogsmith.quant import Quant
from cogsmith.sources import open_source, quantise
from cogsmith.sources.base import Checkpoint
from cogsmith.sources.quantise import QuantisedSource
from cogsmith.sources.safetensors_file import read_header

from .checkpoints import Watcher
from .gguf.files import TinyGguf

IDS = [[(7 * i) % 99 for i in range(20)]]
TOGETHER = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint with a tokenizer, and a generation_config.json that transformers would refuse to write."""
    path = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=99, num_key_value_heads=2, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    model.to(torch.bfloat16).save_pretrained(path)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(99)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(path)
    (path / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.6, "eos_token_id": [2, 5]}')
    return path


def source_of(folder: Path, cache: Path, quant: Quant | None, **settings) -> QuantisedSource:
    return open_source(Model("m", f"path:{folder}", quant=quant, **settings), cache)


def materialise(source) -> Checkpoint:
    return source.materialise(source.resolve(), Watcher())


def laid_out(checkpoint: Checkpoint, folder: Path) -> Path:
    """The checkpoint as a work directory has it."""
    folder.mkdir()
    for file in checkpoint.files:
        (folder / file.path).hardlink_to(file.origin)
    return folder


@torch.inference_mode()
def logits(model) -> torch.Tensor:
    return model.eval()(torch.tensor(IDS)).logits


def in_memory(folder: Path, **settings) -> torch.Tensor:
    config = BitsAndBytesConfig(**settings)
    return logits(AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype="auto"))


@pytest.mark.parametrize(
    ("quant", "settings"),
    [
        (Quant(bits=4), {**TOGETHER, "bnb_4bit_compute_dtype": "bfloat16"}),
        (Quant(bits=4, double=False, type="fp4", storage="float16", compute_dtype="float32"), {"load_in_4bit": True}),
        (Quant(bits=8, outlier_threshold=6.0), {"load_in_8bit": True}),
        (Quant(bits=8, outlier_threshold=6.0, skip_modules=("q_proj",)), None),
    ],
)
def test_the_stored_model_is_the_one_quantised_in_memory(tmp_path, folder, quant, settings):
    settings = settings or {"load_in_8bit": True, "llm_int8_skip_modules": ["lm_head", "q_proj"]}
    stored = laid_out(materialise(source_of(folder, tmp_path / "cache", quant)), tmp_path / "stored")
    expected = in_memory(folder, **settings)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(stored, dtype="auto")), expected)
    loaded = load(stored, {"dtype": "bfloat16"}, name="m", quant=quant)
    assert torch.equal(logits(loaded.model), expected)
    assert loaded.eos_ids == {2, 5}


def test_the_stored_model_is_small_and_needs_no_quantising(tmp_path, folder):
    stored = laid_out(materialise(source_of(folder, tmp_path / "cache", Quant(bits=4))), tmp_path / "stored")
    tensors = {tensor.name: tensor for tensor in read_header(stored / "model.safetensors")}
    assert tensors["model.layers.0.mlp.up_proj.weight"].dtype == "U8"
    assert tensors["lm_head.weight"].dtype == tensors["model.embed_tokens.weight"].dtype == "BF16"
    assert json.loads((stored / "config.json").read_text())["quantization_config"]["quant_method"] == "bitsandbytes"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (stored / name).read_bytes() == (folder / name).read_bytes()
    assert (stored / "model.safetensors").stat().st_mode & 0o044 == 0o044
    assert {path.name for path in stored.iterdir()} == {path.name for path in folder.iterdir()}


def test_sizes_are_estimated_beforehand(tmp_path, folder):
    source = source_of(folder, tmp_path / "cache", Quant(bits=8))
    resolved = source.resolve()
    weights = next(file for file in materialise(source).files if file.path == "model.safetensors")
    # Layers so small have much header, and norms count as quantised.
    assert 0.9 * resolved.checkpoint_bytes < weights.size < 1.3 * resolved.checkpoint_bytes
    assert resolved.unquantised_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_a_model_is_quantised_once(tmp_path, folder, monkeypatch):
    first = materialise(source_of(folder, tmp_path / "cache", Quant(bits=4)))
    monkeypatch.setattr(quantise, "quantise", lambda *_: pytest.fail("quantised again"))
    # What the server does with it changes no byte of it.
    assert materialise(source_of(folder, tmp_path / "cache", Quant(bits=4, require_cuda=True))) == first
    for other, settings in ((Quant(bits=4, type="fp4"), {}), (Quant(bits=4), {"model_args": {"dtype": "float32"}})):
        with pytest.raises(pytest.fail.Exception, match="quantised again"):
            materialise(source_of(folder, tmp_path / "cache", other, **settings))


def test_what_fails_leaves_nothing_behind(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(GenerationConfig, "__init__", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        materialise(source_of(folder, tmp_path / "cache", Quant(bits=4)))
    assert list((tmp_path / "cache" / "quantised").iterdir()) == []


def test_a_stored_model_that_differs_is_refused(tmp_path, folder, monkeypatch):
    """As one would that was saved after a forward pass, without `double`."""
    save = quantise._save

    def save_after_a_forward_pass(model, files, folder):
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.quant_state.absmax[0] += 0.1
        save(model, files, folder)

    monkeypatch.setattr(quantise, "_save", save_after_a_forward_pass)
    with pytest.raises(ConversionError, match=r"up_proj\.weight\.absmax came back different"):
        materialise(source_of(folder, tmp_path / "cache", Quant(bits=4, double=False)))
    assert list((tmp_path / "cache" / "quantised").iterdir()) == []


def test_weights_that_come_quantised_are_not_quantised_again(tmp_path, folder):
    stored = laid_out(materialise(source_of(folder, tmp_path / "cache", Quant(bits=4))), tmp_path / "stored")
    with pytest.raises(SourceError, match=r"is quantised already \(bitsandbytes\)"):
        source_of(stored, tmp_path / "cache", Quant(bits=8)).resolve()
    assert source_of(stored, tmp_path / "cache", None).resolve().shape["quantization_config"]["load_in_4bit"]


def test_a_gguf_is_converted_and_then_quantised(tmp_path):
    path = TinyGguf().write(tmp_path / "tiny.gguf")
    stored = laid_out(materialise(source_of(path, tmp_path / "cache", Quant(bits=8))), tmp_path / "stored")
    original = laid_out(materialise(source_of(path, tmp_path / "cache", None)), tmp_path / "original")
    loaded = load(stored, {}, name="m", quant=Quant(bits=8))
    assert loaded.eos_ids == load(original, {}, name="m").eos_ids
    truth = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(original, quantization_config=truth, dtype="float32").dequantize()
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(ids).logits, model.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def test_at_load_the_source_is_left_as_it_is(tmp_path, folder):
    source = source_of(folder, tmp_path / "cache", Quant(bits=4, at="load"))
    assert not isinstance(source, QuantisedSource)


def test_without_its_packages_nothing_is_fetched(tmp_path, folder, monkeypatch):
    source = source_of(folder, tmp_path / "cache", Quant(bits=4))
    resolved = source.resolve()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    monkeypatch.setattr(source._original, "materialise", lambda *_: pytest.fail("fetched"))
    with pytest.raises(MissingExtra, match="engine,quant"):
        source.materialise(resolved, Watcher())
