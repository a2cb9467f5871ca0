"""Recorded training runs become folders that plain transformers reads as the original program did."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoTokenizer

from cogsmith.errors import ConversionError
from cogsmith.sources import torchfile
from cogsmith.sources.composer.files import METADATA

from .runs import (
    CASES,
    FILE,
    FIXTURES,
    NEWEST,
    RUN,
    SHARDED,
    Notes,
    assert_same,
    classify,
    config_of,
    convert,
    edited,
    expected_ids,
    load,
    model_of,
    source,
)

GPT2_FILES = {"config.json", "merges.txt", "model.safetensors", "special_tokens_map.json", "tokenizer.json",
              "tokenizer_config.json", "vocab.json"}  # fmt: skip
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_the_model_computes_what_the_original_did(name: str, tmp_path: Path):
    assert_same(convert(source(name, tmp_path), tmp_path / "out"), name)


@pytest.mark.parametrize("name", [name for name in CASES if name != "gpt2_no_tokenizer"])
def test_the_tokenizer_reads_as_the_original_did(name: str, tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(convert(source(name, tmp_path), tmp_path / "out"))
    for text, ids in expected_ids(name).items():
        assert tokenizer(text)["input_ids"] == ids, text


@pytest.mark.parametrize("name", ["gpt2_full", "gpt2_tar", "old_gpt2_full", NEWEST, SHARDED])
def test_nothing_of_the_run_is_kept(name: str, tmp_path: Path):
    out = convert(source(name, tmp_path), tmp_path / "out")
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*")}
    assert files.keys() == GPT2_FILES
    numbers = sum(tensor.numel() for tensor in tensors_of(out).values())
    tokenizer = sum(files[name].stat().st_size for name in GPT2_FILES - {"config.json", "model.safetensors"})
    assert sum(path.stat().st_size for path in files.values()) <= 4 * numbers + tokenizer + 64 * 1024
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files.values())


def test_the_optimizers_numbers_are_not_among_the_weights(tmp_path: Path):
    state = torchfile.load(FIXTURES / "gpt2_full" / FILE)["state"]
    assert "optimizers" in state, "the run was saved with its optimizer"
    names = tensors_of(convert(FIXTURES / "gpt2_full", tmp_path / "out")).keys()
    assert {f"model.{name}" for name in names} == state["model"].keys() - {"model.lm_head.weight"}


@pytest.mark.parametrize("name", [SHARDED, NEWEST])
def test_other_layouts_hold_the_same(name: str, tmp_path: Path):
    plain, other = convert(FIXTURES / RUN, tmp_path / "plain"), convert(source(name, tmp_path), tmp_path / "out")
    for file in GPT2_FILES - {"tokenizer_config.json"}:
        assert (other / file).read_bytes() == (plain / file).read_bytes(), file
    said, also = (json.loads((folder / "tokenizer_config.json").read_bytes()) for folder in (plain, other))
    # torch.distributed.checkpoint has no place for a dict that is empty.
    assert {key: value for key, value in said.items() if value != {}} == {
        key: value for key, value in also.items() if value != {}
    }


@pytest.mark.parametrize("precision", DTYPES)
def test_every_float_is_cast_once(precision: str, tmp_path: Path):
    counter = torch.arange(5, dtype=torch.int64)
    run = edited(RUN, tmp_path, lambda state: state["model"].update({"model.transformer.h.0.steps": counter}))
    state = torchfile.load(run / FILE)["state"]["model"]
    converted = _without_check(run, tmp_path / "out", output_precision=precision)
    assert torch.equal(converted.pop("transformer.h.0.steps"), counter)
    for name, tensor in converted.items():
        assert tensor.dtype == DTYPES[precision]
        assert torch.equal(tensor, state[f"model.{name}"].to(DTYPES[precision]))


@pytest.mark.parametrize("precision", DTYPES)
def test_the_config_says_the_precision(precision: str, tmp_path: Path):
    out = convert(FIXTURES / RUN, tmp_path / "out", output_precision=precision)
    config = json.loads((out / "config.json").read_bytes())
    assert config["dtype"] == str(DTYPES[precision]).removeprefix("torch.")
    assert "torch_dtype" not in config
    assert load(out, dtype="auto").dtype == DTYPES[precision]


def test_half_precision_in_and_full_out(tmp_path: Path):
    def halve(state: dict) -> None:
        state["model"] = {name: tensor.to(torch.bfloat16) for name, tensor in state["model"].items()}

    plain, halved = tensors_of(convert(FIXTURES / RUN, tmp_path / "plain")), tmp_path / "halved"
    for name, tensor in tensors_of(convert(edited(RUN, tmp_path, halve), halved)).items():
        assert torch.equal(tensor, plain[name].to(torch.bfloat16).float())


@pytest.mark.parametrize("around", ["module.model.", "model._orig_mod.", "_fsdp_wrapped_module.model."])
def test_names_around_the_models_own_go(around: str, tmp_path: Path):
    def wrap(state: dict) -> None:
        state["model"] = {name.replace("model.", around, 1): tensor for name, tensor in state["model"].items()}

    out = convert(edited(RUN, tmp_path, wrap), tmp_path / "out")
    assert tensors_of(out).keys() == tensors_of(convert(FIXTURES / RUN, tmp_path / "plain")).keys()


def test_a_llama_keeps_its_own_inner_name(tmp_path: Path):
    assert "model.layers.0.self_attn.q_proj.weight" in tensors_of(convert(FIXTURES / "llama_spm", tmp_path / "out"))


def test_constants_that_old_transformers_stored_are_left_out(tmp_path: Path):
    at = "model.transformer.h.0.attn"
    mask = {f"{at}.bias": torch.ones(1, 1, 32, 32), f"{at}.masked_bias": torch.tensor(-1e4)}
    out = convert(edited(RUN, tmp_path, lambda state: state["model"].update(mask)), tmp_path / "out")
    assert_same(out, RUN)
    assert not [name for name in tensors_of(out) if name.endswith((".attn.bias", "masked_bias"))]


def test_weights_of_the_run_alone_are_left_out_and_said(tmp_path: Path):
    notes = Notes()
    run = edited(RUN, tmp_path, lambda state: state["model"].update({"loss.scale": torch.ones(1)}))
    assert_same(convert(run, tmp_path / "out", notes), RUN)
    assert [line for line in notes.lines if "loss.scale" in line]


def test_a_classifier_keeps_its_head(tmp_path: Path):
    run = edited("bert", tmp_path, classify)
    state = torch.load(run / FILE, weights_only=True)["state"]
    out = convert(run, tmp_path / "out")
    config = transformers.BertConfig.from_pretrained(out)
    assert config.architectures == ["BertForSequenceClassification"]
    original = transformers.BertForSequenceClassification(config).eval()
    original.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state["model"].items()})
    ids = torch.tensor([[1, 5, 9, 2]])
    with torch.inference_mode():
        want = original(ids).logits
        have = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()(ids).logits
    assert want.shape == (1, 3)
    torch.testing.assert_close(have, want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["gpt2_full", "llama_fast", "bert"])
def test_shared_weights_are_stored_once(name: str, tmp_path: Path):
    out = convert(FIXTURES / name, tmp_path / "out")
    assert not tensors_of(out).keys() & {"lm_head.weight", "cls.predictions.decoder.weight"}
    state = torchfile.load(FIXTURES / name / FILE)["state"]["model"]
    assert state.keys() & {"model.lm_head.weight", "model.cls.predictions.decoder.weight"}


def test_an_adapted_embedding_is_no_longer_the_heads(tmp_path: Path):
    out = convert(FIXTURES / "lora", tmp_path / "out")
    config = json.loads((out / "config.json").read_bytes())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] is False
    weights = tensors_of(out)
    assert not torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    assert not [name for name in weights if "lora" in name or "base_layer" in name]


@pytest.mark.parametrize("name", ["mosaic_gpt", "mosaic_gpt_alibi", "mpt", "mpt_learned_positions"])
def test_mosaics_own_models_become_known_ones(name: str, tmp_path: Path):
    config = json.loads((convert(FIXTURES / name, tmp_path / "out") / "config.json").read_bytes())
    in_gpt2 = name in ("mosaic_gpt", "mpt_learned_positions")
    assert config["model_type"] == ("gpt2" if in_gpt2 else "mpt")
    assert config["architectures"] == ["GPT2LMHeadModel" if in_gpt2 else "MptForCausalLM"]


def test_a_mosaicgpt_without_biases_has_biases_of_nought(tmp_path: Path):
    def zero(state: dict) -> None:
        for name, tensor in state["model"].items():
            if name.endswith(".bias"):
                tensor.zero_()

    def drop(state: dict) -> None:
        state["model"] = {name: tensor for name, tensor in state["model"].items() if not name.endswith(".bias")}
        config_of(state)["no_bias"] = True

    zeroed = convert(edited("mosaic_gpt", tmp_path, zero), tmp_path / "zeroed")
    dropped = convert(edited("mosaic_gpt", tmp_path, drop), tmp_path / "dropped")
    want, have = tensors_of(zeroed), tensors_of(dropped)
    assert want.keys() == have.keys()
    assert all(torch.equal(tensor, have[name]) for name, tensor in want.items())


def test_settings_of_the_run_are_no_part_of_the_config(tmp_path: Path):
    def say(state: dict) -> None:
        of_the_run = {"_name_or_path": "/home/me/x", "init_device": "meta", "torch_dtype": "bfloat16"}
        kept = {"pair": (1, 2), "id2label": {"0": "yes", "1": "no"}}
        config_of(state).update(of_the_run | kept | {"auto_map": {"AutoModel": "x.Y"}})

    config = json.loads((convert(edited(RUN, tmp_path, say), tmp_path / "out") / "config.json").read_bytes())
    assert not config.keys() & {"_name_or_path", "init_device", "torch_dtype", "auto_map"}
    assert (config["pair"], config["id2label"]) == ([1, 2], {"0": "yes", "1": "no"})


SHARDED_1 = "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel"
SHARDED_2 = "torch.distributed.fsdp._fully_shard._fsdp_init.FSDP"
AROUND = {
    RUN: ("GPT2LMHeadModel", SHARDED_1),
    "llama_fast": ("LlamaForCausalLM", SHARDED_2 + "LlamaForCausalLM"),
    "bert": ("BertForMaskedLM", SHARDED_1),
    "mpt": ("MptForCausalLM", SHARDED_1),
    "mpt_learned_positions": ("GPT2LMHeadModel", SHARDED_1),
    "mosaic_gpt_alibi": ("MptForCausalLM", "torch._dynamo.eval_frame.OptimizedModule"),
}


@pytest.mark.parametrize("name", AROUND)
def test_the_class_where_another_was_around_it(name: str, tmp_path: Path):
    """Composer saves the class of what it trains, which is torch's own under FSDP."""
    own, around = AROUND[name]
    run = edited(name, tmp_path, lambda state: model_of(state)["config"].update({"class": around}))
    out = convert(run, tmp_path / "out")
    assert json.loads((out / "config.json").read_bytes())["architectures"] == [own]
    assert_same(out, name)


def test_transformers_own_mpt_keeps_its_config(tmp_path: Path):
    """It has ALiBi whatever its config says."""
    known = convert(FIXTURES / "mpt", tmp_path / "known")

    def native(state: dict) -> None:
        content = json.loads((known / "config.json").read_bytes())
        own = "transformers.models.mpt.modeling_mpt.MptForCausalLM"
        model_of(state)["config"] = {"content": content, "file_extension": ".json", "class": own}
        config_of(state)["attn_config"].pop("alibi")

    out = convert(edited("mpt", tmp_path, native), tmp_path / "out")
    assert_same(out, "mpt")


def test_a_class_of_ones_own_is_kept_where_its_code_comes_along(tmp_path: Path):
    def rename(state: dict) -> None:
        model_of(state)["config"]["class"] = "mine.modeling.MyModel"
        config_of(state)["model_type"] = "mine"

    out = convert(edited("gpt2_no_tokenizer", tmp_path, rename), tmp_path / "out", own_code=True)
    config = json.loads((out / "config.json").read_bytes())
    assert (config["architectures"], config["model_type"]) == (["MyModel"], "mine")
    assert "transformer.h.0.attn.c_attn.weight" in tensors_of(out)


def test_compressed_by_hand(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / f"{FILE}.gz").write_bytes(gzip.compress((FIXTURES / RUN / FILE).read_bytes()))
    out = convert(run, tmp_path / "out")
    assert_same(out, RUN)
    assert {path.name for path in out.iterdir()} == GPT2_FILES


def test_shards_below_the_newest_layout(tmp_path: Path):
    import torch.distributed.checkpoint as dcp

    run = tmp_path / "run"
    run.mkdir()
    shutil.copyfile(FIXTURES / NEWEST / "ep0-ba2" / METADATA, run / METADATA)
    tensors = torch.load(FIXTURES / NEWEST / "ep0-ba2" / "model" / "model.pt", weights_only=True)
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(run / "model"), no_dist=True)
    assert_same(convert(run, tmp_path / "out"), NEWEST)


def test_the_same_bytes_come_out_again(tmp_path: Path):
    once, again = (convert(FIXTURES / "lora_gpt2", tmp_path / name) for name in ("once", "again"))
    for path in once.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def _without_check(run: Path, out: Path, **options: object) -> dict[str, torch.Tensor]:
    """Convert a run with a tensor that its model has no place for, which the check at the end refuses."""
    with pytest.raises(ConversionError, match="steps has no place"):
        convert(run, out, **options)
    with safe_open(out / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
