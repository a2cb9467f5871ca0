"""`quant.*` and the upstream keys of the same meaning: what they come to, and what they must not say together."""

from __future__ import annotations

import pytest
from transformers import BitsAndBytesConfig

from cogsmith.config import load
from cogsmith.quant import Quant

MODEL = "[models.m]\nsource = 'hf:a/b'\n"

COMPLETED = [
    ("quant.bits = 4", Quant(bits=4, type="nf4", double=True, compute_dtype=None, storage="uint8", at="build")),
    ("config.load_in_4bit = true", Quant(bits=4)),
    ("quant.preset = 'lmql'", Quant(bits=4)),
    ("quant.preset = 'accessory'", Quant(bits=4, double=False, compute_dtype="bfloat16")),
    ("quant.preset = 'curated-4bit'", Quant(bits=4, type="fp4", double=True, compute_dtype="bfloat16")),
    ("quant.preset = 'curated-8bit'", Quant(bits=8, outlier_threshold=6.0, finetunable=False)),
    ("quant = {preset = 'curated-4bit', type = 'nf4', compute_dtype = 'fp32'}", Quant(bits=4, compute_dtype="float32")),
    ("quant = {bits = 4, storage = 'bf16'}", Quant(bits=4, storage="bfloat16")),
    ("quant = {bits = 8, outlier_threshold = 4}", Quant(bits=8, outlier_threshold=4.0)),
    # What cannot be done before the server knows its devices.
    ("quant = {bits = 8, finetunable = true}", Quant(bits=8, finetunable=True, at="load")),
    ("quant = {bits = 4, fp32_cpu_offload = true}", Quant(bits=4, fp32_cpu_offload=True, at="load")),
    ("quant = {bits = 4, at = 'load', require_cuda = true}", Quant(bits=4, at="load", require_cuda=True)),
    ("quant = {bits = 4, skip_modules = ['lm_head', 'layers.0']}", Quant(bits=4, skip_modules=("lm_head", "layers.0"))),
    (
        "config = {load_in_4bit = true, bnb_4bit_quant_type = 'fp4', bnb_4bit_use_double_quant = false, "
        "bnb_4bit_compute_dtype = 'torch.bfloat16', bnb_4bit_quant_storage = 'float16'}",
        Quant(bits=4, type="fp4", double=False, compute_dtype="bfloat16", storage="float16"),
    ),
    (
        "config = {load_in_8bit = true, llm_int8_threshold = 5, llm_int8_has_fp16_weight = true, "
        "llm_int8_skip_modules = ['a'], llm_int8_enable_fp32_cpu_offload = true}",
        Quant(
            bits=8, outlier_threshold=5.0, finetunable=True, skip_modules=("a",), fp32_cpu_offload=True, at="load"
        ),
    ),
    ("config = {load_in_8bit = false}", None),
    ("config = {dtype = 'bfloat16'}", None),
]  # fmt: skip

REFUSED = [
    ("quant.bits = 3", "quant.bits", "expected 4 or 8, got 3", "write 4 or 8"),
    ("quant = {bits = 4, compute_dtype = 'float64'}", "quant.compute_dtype", "got 'float64'", "'bf16'"),
    ("quant.preset = 'curated'", "quant.preset", "got 'curated'", "'curated-8bit'"),
    ("quant = {bits = 4, bit = 8}", "quant.bit", "unknown key", "write bits"),
    ("quant.type = 'nf4'", "quant.type", "quant.type = 'nf4' says how to quantise", "quant.bits = 4"),
    ("quant.require_cuda = true", "quant.require_cuda", "quant.require_cuda = true says", "or remove it"),
    ("quant = {bits = 8, type = 'nf4'}", "quant.type", "quant.type = 'nf4' is for 4 bits", "remove it"),
    ("quant = {bits = 4, outlier_threshold = 6}", "quant.outlier_threshold", "= 6 is for 8 bits", "remove it"),
    ("quant = {bits = 8, outlier_threshold = -1}", "quant.outlier_threshold", "0 or more, got -1", "from 0 on"),
    ("quant = {bits = 8, preset = 'lmql'}", "quant.bits", "quant.preset = 'lmql' is for 4 bits", "one of the two"),
    ("quant = {preset = 'curated-8bit', double = true}", "quant.double", "double = true is for 4 bits", "remove"),
    ("quant = {bits = 8, finetunable = true, at = 'build'}", "quant.at", "quant.finetunable keeps the weights", "load"),
    ("quant = {bits = 4, skip_modules = ['(']}", "quant.skip_modules", "'(' is neither", "model.layers.0"),
    ("quant = {bits = 4, require_cuda = true}\ncog.gpu = false", "quant.require_cuda", "cog.gpu = false", "one of"),
    ("quant.bits = 4\nconfig.load_in_4bit = true", "config.load_in_4bit", "quant and config.load_in_4bit", "keep one"),
    ("quant.bits = 4\nconfig.quantization_config.bits = 4", "config.quantization_config", "both say how", "keep one"),
    ("config.bnb_4bit_quant_type = 'nf4'", "config.bnb_4bit_quant_type", "'nf4' says how", "config.load_in_4bit"),
    ("config = {load_in_8bit = true, bnb_4bit_quant_type = 'nf4'}", "config.bnb_4bit_quant_type", "'nf4'", "remove"),
    ("config.load_in_4bit = 'yes'", "config.load_in_4bit", "'yes' is no load_in_4bit", "another value"),
    ("config = {load_in_8bit = true, llm_int8_threshold = 'x'}", "config.llm_int8_threshold", "'x' is no", "another"),
    ("config = {load_in_4bit = true, bnb_4bit_quant_storage = 'x'}", "config.bnb_4bit_quant_storage", "'x' is no", ""),
    ("config = {load_in_4bit = true, bnb_4bit_compute_dtype = 'float64'}", "config.bnb_4bit_compute_dtype", "64", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), COMPLETED, ids=[text for text, _ in COMPLETED])
def test_what_settings_come_to(write, text, expected):
    model = load(write(MODEL + text)).models["m"]
    assert model.quant == expected
    assert not any("bit" in key or "int8" in key for key in model.model_args)


@pytest.mark.parametrize(("text", "key", "message", "fix"), REFUSED, ids=[text for text, *_ in REFUSED])
def test_what_is_refused(problems_of, text, key, message, fix):
    (problem,) = problems_of(MODEL + text)
    assert problem.where == f"models.m.{key}"
    assert message in problem.message
    assert fix in (problem.fix or "")
    assert problem.line == (4 if "\nconfig." in text else 3)


def test_all_contradictions_are_told_at_once(problems_of):
    text = MODEL + "quant = {bits = 8, type = 'fp4', double = true, compute_dtype = 'bf16', storage = 'uint8'}\n"
    found = [problem.where for problem in problems_of(text)]
    assert found == [f"models.m.quant.{key}" for key in ("type", "double", "compute_dtype", "storage")]


@pytest.mark.parametrize(
    ("upstream", "ours"),
    [
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "float16"}, Quant(bits=4, type="fp4", double=False)),
        ({"load_in_8bit": True}, Quant(bits=8)),
        ({"load_in_8bit": True, "llm_int8_threshold": 3.0}, Quant(bits=8, outlier_threshold=3.0)),
        ({"load_in_8bit": True, "llm_int8_has_fp16_weight": True}, Quant(bits=8, finetunable=True)),
    ],
)
def test_the_settings_in_the_words_of_transformers(upstream, ours):
    """Where nothing is said, BitsAndBytesConfig's own defaults hold but for nf4, double and the compute dtype."""
    assert BitsAndBytesConfig.from_dict(ours.to_bitsandbytes("float16")).to_dict() == (
        BitsAndBytesConfig(**upstream).to_dict()
    )
