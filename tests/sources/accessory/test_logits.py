"""What plain transformers computes from an imported folder is what LLaMA2-Accessory computed from the checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cogsmith.sources.verify import verify_folder

from .folders import DATA, Notes, convert, copy_side_files, expected, split, whole, write_shard

CASES = (
    "llama",
    "llama_hf",
    "llama_peft",
    "internlm",
    "falcon",
    "falcon_new",
    "mixtral",
    "mixtral_sparse",
    "meta",
    "tuned",
)


def check(folder, case):
    """Compare logits, greedy continuation and the prompt's ids with the original's."""
    verify_folder(folder)
    want = expected(case)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([want["ids"]])
    with torch.inference_mode():
        logits = model(ids).logits[0]
        answer = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=None
        )
    torch.testing.assert_close(logits, want["logits"], atol=1e-4, rtol=0)
    assert answer[0, ids.shape[1] :].tolist() == want["greedy"]
    assert AutoTokenizer.from_pretrained(folder)(want["prompt"])["input_ids"] == want["ids"]


@pytest.mark.parametrize("case", CASES)
def test_every_type_gives_the_logits_of_the_original(case, tmp_path):
    check(convert([DATA / case], tmp_path / "out", output_precision="fp32"), case)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("case", ["llama", "llama_peft", "falcon", "mixtral", "mixtral_sparse"])
def test_the_number_of_shards_does_not_matter(case, count, tmp_path):
    folder = split(case, tmp_path / "split", count)
    check(convert([folder], tmp_path / "out", output_precision="fp32"), case)


def test_an_embedding_cut_along_the_vocabulary_as_llama_3_has_it(tmp_path):
    folder = tmp_path / "meta"
    folder.mkdir()
    tensors = whole(DATA / "meta")
    for rank, half in enumerate(tensors["tok_embeddings.weight"].chunk(2, 0)):
        shard = torch.load(DATA / f"meta/consolidated.{rank:02d}.pth", weights_only=True)
        torch.save({**shard, "tok_embeddings.weight": half.clone()}, folder / f"consolidated.{rank:02d}.pth")
    copy_side_files(DATA / "meta", folder)
    check(convert([folder], tmp_path / "out", output_precision="fp32"), "meta")


def test_lora_is_rounded_once(tmp_path):
    """Its fp32 sum is the one nearest to what the layer computes, W·x + B·(A·x), which the original rounds twice."""
    folder = convert([DATA / "llama_peft"], tmp_path / "out", output_precision="fp32")
    model = AutoModelForCausalLM.from_pretrained(folder).model.layers[0].mlp.down_proj.weight
    tensors = {key: value.double() for key, value in whole(DATA / "llama_peft").items()}
    layer = "layers.0.feed_forward.w2"
    added = tensors[f"{layer}.lora_b.weight"] @ tensors[f"{layer}.lora_a.weight"]
    assert torch.equal(model, (tensors[f"{layer}.weight"] + added).float())


def test_a_delta_after_its_base_gives_the_merged_model_of_the_original(tmp_path):
    check(convert([DATA / "meta", DATA / "delta"], tmp_path / "out", output_precision="fp32"), "delta")


def test_a_delta_need_not_have_the_shards_of_its_base(tmp_path):
    one = tmp_path / "delta"
    one.mkdir()
    write_shard(one, 0, 1, whole(DATA / "delta"), family="model-diff")
    copy_side_files(DATA / "delta", one)
    check(convert([DATA / "meta", one], tmp_path / "out", output_precision="fp32"), "delta")


def test_what_was_trained_overrides_its_base(tmp_path):
    # LLaMA2-Accessory's --only_save_trainable: a folder with biases, LoRA and norms alone.
    tensors = whole(DATA / "llama_peft")
    trained = {name for name in tensors if "lora" in name or "bias" in name or "norm" in name}
    assert 0 < len(trained) < len(tensors)
    base, top = tmp_path / "base", tmp_path / "top"
    for folder in (base, top):
        folder.mkdir()
        copy_side_files(DATA / "llama_peft", folder)
    untrained = {name: tensor for name, tensor in tensors.items() if name not in trained}
    norms = {name: torch.zeros_like(tensor) for name, tensor in tensors.items() if "norm" in name}
    write_shard(base, 0, 1, {**untrained, **norms})
    write_shard(top, 0, 1, {name: tensors[name] for name in trained})
    check(convert([base, top], tmp_path / "out", output_precision="fp32"), "llama_peft")


def test_a_bias_that_was_never_saved_is_zero(tmp_path):
    tensors = whole(DATA / "llama_peft")
    folders = [tmp_path / "zero", tmp_path / "absent"]
    gone = "layers.1.attention.wk.bias"
    for folder in folders:
        folder.mkdir()
        copy_side_files(DATA / "llama_peft", folder)
    write_shard(folders[0], 0, 1, {**tensors, gone: torch.zeros_like(tensors[gone])})
    write_shard(folders[1], 0, 1, {name: tensor for name, tensor in tensors.items() if name != gone})
    zero, absent = (load_file(convert([f], tmp_path / f"{f.name}-out") / "model.safetensors") for f in folders)
    assert zero.keys() == absent.keys()
    assert all(torch.equal(zero[name], absent[name]) for name in zero)


def test_precision_is_as_stored_or_as_asked_for(tmp_path):
    stored = convert([DATA / "llama_hf"], tmp_path / "stored")
    asked = convert([DATA / "llama_hf"], tmp_path / "asked", output_precision="fp16")
    for folder, dtype in ((stored, torch.bfloat16), (asked, torch.float16)):
        assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {dtype}
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == dtype
    before = whole(DATA / "llama_hf")["output.weight"]
    assert torch.equal(load_file(stored / "model.safetensors")["lm_head.weight"], before)
    assert torch.equal(load_file(asked / "model.safetensors")["lm_head.weight"], before.half())


def test_configs_name_the_special_ids_and_the_context(tmp_path):
    notes = Notes()
    folder = convert([DATA / "llama"], tmp_path / "out", reporter=notes)
    config, generation = (json.loads((folder / name).read_text()) for name in ("config.json", "generation_config.json"))
    assert (config["bos_token_id"], config["eos_token_id"], config["max_position_embeddings"]) == (1, 2, 64)
    assert config["tie_word_embeddings"] is False
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert notes.said == []


def test_the_users_max_seq_len_wins_and_a_missing_one_is_said(tmp_path):
    asked = convert([DATA / "llama"], tmp_path / "asked", max_seq_len=48)
    assert json.loads((asked / "config.json").read_text())["max_position_embeddings"] == 48
    notes = Notes()
    folder = convert([DATA / "meta"], tmp_path / "meta", reporter=notes)
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 4096
    assert notes.said == ["the context is taken to be 4096 tokens: nothing says max_seq_len"]
