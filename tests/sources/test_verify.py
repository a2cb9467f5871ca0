"""Whether a folder's weights are the model's that config.json names: against models that transformers itself saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from cogsmith.errors import ConversionError, SourceError
from cogsmith.sources.verify import verify_folder

from .checkpoints import Watcher

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA = {**TINY, "intermediate_size": 48, "num_key_value_heads": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "llama, tied": lambda: transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "llama, biases": lambda: transformers.LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True),
    "mixtral": lambda: transformers.MixtralConfig(**LLAMA, num_local_experts=4),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
    "mpt": lambda: transformers.MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2),
    "falcon": lambda: transformers.FalconConfig(**TINY, new_decoder_architecture=False, multi_query=True),
    "falcon, untied": lambda: transformers.FalconConfig(**TINY, tie_word_embeddings=False),
}
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save a tiny model, its tensors changed by `edit`, and return the folder."""

    def saved(kind: str, edit: Callable[[Tensors], None] = lambda tensors: None, shard: str = "5GB") -> Path:
        folder = tmp_path / "model"
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]())
        model.save_pretrained(folder, max_shard_size=shard)
        if shard == "5GB":
            tensors = load_file(folder / "model.safetensors")
            edit(tensors)
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder

    return saved


def refused(folder: Path) -> str:
    with pytest.raises(ConversionError) as caught:
        verify_folder(folder)
    return caught.value.message


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_transformers_saved_is_whole(saved, kind):
    verify_folder(saved(kind))


def test_shards_are_read_together(saved):
    folder = saved("llama", shard="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    verify_folder(folder)
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        verify_folder(folder)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("llama", "model.layers.1.mlp.up_proj.weight"),
        ("llama", "lm_head.weight"),
        ("llama, tied", "model.embed_tokens.weight"),
        ("llama, biases", "model.layers.0.mlp.down_proj.bias"),
        ("mixtral", "model.layers.1.block_sparse_moe.experts.2.w2.weight"),
        ("mixtral", "model.layers.0.block_sparse_moe.experts.0.w1.weight"),
        ("mixtral", "model.layers.0.block_sparse_moe.gate.weight"),
        ("gpt2", "transformer.h.1.attn.c_attn.bias"),
        ("mpt", "transformer.blocks.0.attn.Wqkv.weight"),
        ("falcon", "transformer.h.0.self_attention.query_key_value.weight"),
        ("falcon, untied", "lm_head.weight"),
    ],
)
def test_a_tensor_that_is_missing_is_named(saved, kind, name):
    assert f"{name} is missing" in refused(saved(kind, lambda tensors: tensors.pop(name)))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_tensor_too_many_is_named(saved, kind):
    message = refused(saved(kind, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2)})))
    assert "extra.weight has no place in it" in message


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("llama", "model.layers.1.mlp.up_proj.weight"),
        ("mixtral", "model.layers.1.block_sparse_moe.experts.2.w2.weight"),
        ("mixtral", "model.layers.1.block_sparse_moe.experts.2.w3.weight"),
        ("gpt2", "transformer.wpe.weight"),
        ("mpt", "transformer.norm_f.weight"),
        ("falcon", "transformer.h.0.mlp.dense_h_to_4h.weight"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(saved, kind, name):
    message = refused(saved(kind, lambda tensors: tensors.update({name: torch.zeros(3, 5)})))
    assert f"{name} has the shape [3, 5] in place of [" in message


def test_a_transposed_weight_is_another_shape(saved):
    name = "transformer.h.0.attn.c_attn.weight"
    message = refused(saved("gpt2", lambda tensors: tensors.update({name: tensors[name].T.contiguous()})))
    assert f"{name} has the shape [96, 32] in place of [32, 96]" in message


def test_many_faults_are_counted(saved):
    def drop(tensors: Tensors) -> None:
        for name in [name for name in tensors if ".layers.1." in name]:
            del tensors[name]

    assert "and 4 more" in refused(saved("llama", drop))


def test_a_shared_head_may_be_stored_twice_if_it_is_the_same(saved):
    def twice(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()

    def other(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1

    verify_folder(saved("gpt2", twice))
    assert "lm_head.weight is not transformer.wte.weight" in refused(saved("gpt2", other))


def test_buffers_of_older_releases_may_be_there(saved):
    def old(tensors: Tensors) -> None:
        tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
        tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)

    verify_folder(saved("gpt2", old))
    inverse = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    verify_folder(saved("llama", lambda tensors: tensors.update(inverse)))


def test_no_weight_is_read(saved):
    """A file that is a header and a hole passes."""
    folder = saved("llama")
    file = folder / "model.safetensors"
    size = file.stat().st_size
    length = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    with file.open("r+b") as stream:
        stream.truncate(length)
        stream.truncate(size)
    assert file.stat().st_blocks * 512 < size
    verify_folder(folder)


def test_an_architecture_that_transformers_does_not_have(saved):
    folder = saved("llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mosaic_gpt"}))
    assert "model_type 'mosaic_gpt', which transformers does not have" in refused(folder)
    watcher = Watcher()
    verify_folder(folder, reporter=watcher, own_code=True)
    assert "its own code" in watcher.notes[0]


def test_a_type_is_no_fault(saved):
    def halve(tensors: Tensors) -> None:
        tensors.update({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()})

    verify_folder(saved("llama", halve))


def test_a_model_of_another_kind_is_held_against_the_class_that_is_named(tmp_path: Path):
    config = transformers.BertConfig(**TINY, intermediate_size=48)
    config.architectures = ["BertModel"]
    transformers.BertModel(config).save_pretrained(tmp_path)
    assert "config.json says BertModel, and the weights are not those of BertLMHeadModel" in refused(tmp_path)
    verify_folder(tmp_path, task="encoder")
    config = transformers.ViTConfig(**{**TINY, "intermediate_size": 48, "image_size": 8, "patch_size": 4})
    transformers.ViTModel(config).save_pretrained(tmp_path)
    verify_folder(tmp_path)


def test_a_config_that_contradicts_itself(saved):
    folder = saved("llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 5}))
    assert "config.json" in refused(folder)


def test_a_damaged_file(saved):
    folder = saved("llama")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(SourceError, match="not a sound safetensors file"):
        verify_folder(folder)


def test_pickles_are_passed_over_with_a_note(saved):
    folder = saved("llama")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    watcher = Watcher()
    verify_folder(folder, reporter=watcher)
    assert "no safetensors" in watcher.notes[0]


def test_weights_in_fewer_bits_are_loaded(saved, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    quantisation = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        saved("llama"), quantization_config=quantisation, device_map={"": "cpu"}
    )
    folder = tmp_path / "quantised"
    model.save_pretrained(folder)
    verify_folder(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert "model.norm.weight is missing" in refused(folder)


def test_an_encoder_s_head_and_pooler_are_no_matter_and_its_layers_are(tmp_path):
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    verify_folder(tmp_path, task="encoder")
    config.num_hidden_layers = 3
    config.save_pretrained(tmp_path)
    with pytest.raises(ConversionError, match=r"not those of BertModel: encoder\.layer\.2\..* is missing"):
        verify_folder(tmp_path, task="encoder")


def test_a_classifier_is_held_against_its_own_class(tmp_path: Path):
    config = transformers.BertConfig(**TINY, intermediate_size=48, num_labels=3)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    verify_folder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert refused(tmp_path) == "the weights are not those of BertForSequenceClassification: classifier.bias is missing"
    verify_folder(tmp_path, task="encoder")
