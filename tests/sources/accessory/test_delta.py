"""Deltas against those that LLaMA2-Accessory's own weight_operate.py made and applied."""

from __future__ import annotations

import json
import os

import pytest
import torch

from cogsmith.errors import ConversionError, SourceError
from cogsmith.sources.accessory import delta
from cogsmith.sources.silent import Silent

from .folders import DATA, SINGLE, convert, copy, copy_side_files, shards, whole, write_shard
from .test_logits import check

HALF = 2.0**-11
"""Half the distance between neighbours in fp16, relative to the number."""


def apply(base, changed, out, **options):
    out.mkdir()
    delta.apply(base, changed, out, reporter=Silent(), **options)
    return out


def extract(base, tuned, out, **options):
    out.mkdir()
    delta.extract(base, tuned, out, reporter=Silent(), **options)
    return out


def test_apply_gives_the_merged_model_of_the_original(tmp_path):
    out = apply(DATA / "meta", DATA / "delta", tmp_path / "applied")
    assert sorted(os.listdir(out)) == ["config.json", SINGLE, "meta.json", "tokenizer.model"]
    assert torch.load(out / SINGLE, weights_only=True)["model"]["llma.norm.weight"].dtype == torch.float16
    check(convert([out], tmp_path / "hf", output_precision="fp32"), "delta")


def test_apply_writes_a_hugging_face_folder(tmp_path):
    check(apply(DATA / "meta", DATA / "delta", tmp_path / "out", to="hf", dtype="float32"), "delta")


def test_extract_is_the_originals_to_the_bit(tmp_path):
    out = extract(DATA / "meta", DATA / "tuned", tmp_path / "out")
    have, want = whole(out), whole(DATA / "delta")
    assert have.keys() == want.keys()
    assert all(torch.equal(have[name], want[name]) for name in want)
    assert json.loads((out / "meta.json").read_text()) == {"llama_type": "llama_peft"}


@pytest.mark.parametrize(("base", "tuned"), [("meta", "tuned"), ("llama_hf", "llama_hf"), ("mixtral", "mixtral")])
def test_what_is_extracted_and_applied_is_what_was_there(base, tuned, tmp_path):
    folder = tmp_path / "tuned"
    folder.mkdir()
    generator = torch.Generator().manual_seed(5)
    trained = {
        name: (tensor.float() + 0.01 * torch.randn(tensor.shape, generator=generator)).half()
        for name, tensor in whole(DATA / tuned).items()
    }
    write_shard(folder, 0, 1, trained)
    copy_side_files(DATA / tuned, folder)
    difference = extract(DATA / base, folder, tmp_path / "delta")
    again = whole(apply(DATA / base, difference, tmp_path / "again"))
    assert again.keys() == trained.keys()
    for name, tensor in trained.items():
        # One rounding of the difference, one of the sum.
        bound = 2 * HALF * (tensor.float().abs().max() + whole(DATA / base).get(name, tensor).float().abs().max())
        assert (again[name].float() - tensor.float()).abs().max() <= bound, name


def test_what_only_one_of_the_two_has_is_kept(tmp_path):
    tensors = whole(DATA / "tuned")
    lean = tmp_path / "lean"
    lean.mkdir()
    copy_side_files(DATA / "tuned", lean)
    write_shard(lean, 0, 1, {name: tensor for name, tensor in tensors.items() if "norm" in name or "bias" in name})
    difference = extract(DATA / "meta", lean, tmp_path / "delta")
    assert whole(difference).keys() == {name for name in tensors if "norm" in name or "bias" in name}
    applied = whole(apply(DATA / "meta", difference, tmp_path / "applied"))
    base = whole(DATA / "meta")
    assert torch.equal(applied["output.weight"], base["output.weight"])
    assert torch.equal(applied["layers.0.attention.wq.bias"], tensors["layers.0.attention.wq.bias"])
    assert "rope.freqs" not in applied


def test_the_base_may_be_accessorys_and_a_delta_without_arguments(tmp_path):
    base, difference = copy("tuned", tmp_path / "base"), copy("delta", tmp_path / "delta")
    for name in ("config.json", "meta.json", "tokenizer.model"):
        (difference / name).unlink()
    out = apply(base, difference, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["lora_rank"] == 2
    assert (out / "tokenizer.model").read_bytes() == (base / "tokenizer.model").read_bytes()
    name = "layers.0.feed_forward.w2.weight"
    want = whole(base)[name].float() + whole(DATA / "delta")[name].float()
    assert torch.equal(whole(out)[name], want.half())


def test_other_types_of_numbers(tmp_path):
    out = apply(DATA / "meta", DATA / "delta", tmp_path / "out", dtype="bfloat16")
    assert {tensor.dtype for tensor in shards(out)[0].values()} == {torch.bfloat16}


def test_numbers_too_large_are_refused_and_named(tmp_path):
    folder = tmp_path / "tuned"
    folder.mkdir()
    copy_side_files(DATA / "tuned", folder)
    write_shard(folder, 0, 1, {"norm.weight": torch.full((16,), 1e5), "output.weight": torch.zeros(64, 16)})
    with pytest.raises(ConversionError, match=r"norm\.weight holds numbers up to 1e\+05.*\n.*--dtype"):
        extract(DATA / "meta", folder, tmp_path / "out")
    wide = extract(DATA / "meta", folder, tmp_path / "wide", dtype="float32")
    assert whole(wide)["norm.weight"].max() > 99_000


@pytest.mark.parametrize(
    ("operation", "base", "other", "message"),
    [
        (apply, "delta", "delta", "this should be the base: whole weights"),
        (apply, "meta", "tuned", "this should be a delta: files called"),
        (extract, "meta", "delta", "this should be the tuned weights"),
        (extract, "meta", "llama", "output.weight is [320, 16] in the tuned weights and [64, 16] in the base"),
        (extract, "meta", "falcon", "their layers are not made of the same parts"),
        (extract, "internlm", "meta", "their layers are not made of the same parts"),
        (extract, "meta", "nowhere", "is not a folder"),
    ],
)
def test_folders_that_do_not_belong_together(operation, base, other, message, tmp_path):
    with pytest.raises(SourceError) as caught:
        operation(DATA / base, DATA / other, tmp_path / "out")
    assert message in str(caught.value)
