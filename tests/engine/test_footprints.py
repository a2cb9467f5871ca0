"""How much memory a quantised model takes, told beforehand, against the model loaded by transformers."""

import pytest
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from cogsmith.engine.description import describe
from cogsmith.engine.loader import load
from cogsmith.quant import Quant

from .quantised import FOUR, LLM_INT8, llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    llama().save_pretrained(path)
    return path


@pytest.mark.parametrize(
    "quant",
    [
        *(FOUR, Quant(bits=4, double=False), Quant(bits=4, storage="bfloat16"), Quant(bits=4, skip_modules=("mlp",))),
        *(Quant(bits=8), LLM_INT8, Quant(bits=8, finetunable=True, at="load")),
    ],
)
def test_the_footprint_told_beforehand_is_the_loaded_models(folder, quant):
    loaded = load(folder, {}, name="m", quant=quant)
    info = loaded.info(runner="", max_context=None)
    told = describe(folder, {}, quant)
    assert told.quantized_footprint_bytes == info.footprint_bytes
    # transformers' own count leaves out the scales, but has the parameters right.
    assert info.footprint_bytes > loaded.model.get_memory_footprint() or quant.finetunable
    assert told.memory_footprint == loaded.model.get_memory_footprint()
    original = AutoModelForCausalLM.from_pretrained(folder)
    assert (told.footprint_bytes, told.n_params) == (original.get_memory_footprint(), original.num_parameters())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_footprints_in_other_types_are_transformers(folder, dtype):
    in_bits = [BitsAndBytesConfig(load_in_8bit=True), BitsAndBytesConfig(load_in_4bit=True)]
    wanted = [
        *(AutoModelForCausalLM.from_pretrained(folder, dtype=plain) for plain in ("float32", "float16")),
        *(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=each) for each in in_bits),
    ]
    found = describe(folder, {"dtype": dtype}, in_other_types=True).footprints
    assert list(found) == ["fp32", "fp16", "int8", "4-bit"]
    assert list(found.values()) == [model.get_memory_footprint() for model in wanted]
    assert found["fp32"] > found["fp16"]
    assert found["int8"] > found["4-bit"]


def test_the_footprint_of_a_float16_model_is_told_too(folder):
    loaded = load(folder, {"dtype": "float16"}, name="m", quant=FOUR)
    told = describe(folder, {"dtype": "float16"}, FOUR)
    assert told.memory_footprint == loaded.model.get_memory_footprint()
    assert told.quantized_footprint_bytes == loaded.info(runner="", max_context=None).footprint_bytes


def test_a_second_quantisation_of_the_scales_shows_in_the_footprint(folder):
    double, single, eight, none = (
        load(folder, {}, name="m", quant=quant).info(runner="", max_context=None).footprint_bytes
        for quant in (Quant(bits=4), Quant(bits=4, double=False), Quant(bits=8), None)
    )
    # The layers are small here, and each has a table of 1 KiB for its scales.
    assert (double - 14 * (256 * 4 + 4)) < single < eight < none


def test_the_tree_of_modules_shows_the_quantised_layers(folder):
    assert "Linear4bit" in describe(folder, {}, FOUR).tree
    assert "Linear8bitLt" in describe(folder, {"load_in_8bit": True}).tree
    assert describe(folder, {}).quantization is None
    assert describe(folder, {}, FOUR).quantization == "4-bit nf4, double, at build"
