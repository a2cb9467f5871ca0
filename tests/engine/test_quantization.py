"""Quantised models: which layers, which settings reach them, and that their numbers are transformers' own."""

import importlib.util
import logging

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config

from cogsmith.engine import loader, quantization
from cogsmith.engine.loader import LoadedModel, load
from cogsmith.engine.request import GenerateRequest
from cogsmith.errors import MissingExtra, UserError
from cogsmith.quant import Quant

from .models import VOCAB, engine_over, random_model, run
from .quantised import FOUR, LLM_INT8, SHAPE, llama

IDS = [(7 * i) % VOCAB for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    llama().save_pretrained(path)
    return path


def layers(loaded: LoadedModel, name=""):
    return [
        module
        for path, module in loaded.model.named_modules()
        if isinstance(module, Linear4bit | Linear8bitLt) and name in path
    ]


@torch.inference_mode()
def logits(model, ids=IDS):
    return model(torch.tensor([ids])).logits[0]


def plain(folder, **settings):
    """The truth: transformers with the same settings."""
    config = BitsAndBytesConfig(**settings)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype="float32").eval()


# -- what reaches the layers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("compute", ["float32", "float16", "bfloat16"])
def test_four_bits(folder, type_, double, compute):
    loaded = load(folder, {}, name="m", quant=Quant(bits=4, type=type_, double=double, compute_dtype=compute))
    assert len(layers(loaded)) == 2 * 7
    for layer in layers(loaded):
        state = layer.weight.quant_state
        assert isinstance(layer, Linear4bit)
        assert (state.nested, state.quant_type, layer.compute_dtype) == (double, type_, getattr(torch, compute))
    assert type(loaded.model.get_output_embeddings()) is torch.nn.Linear
    assert type(loaded.model.get_input_embeddings()) is torch.nn.Embedding
    assert (loaded.head_size, loaded.info(runner="", max_context=None).details["quantization"]) == (
        VOCAB,
        "bitsandbytes",
    )


@pytest.mark.parametrize("storage", ["uint8", "int8", "float16", "bfloat16", "float32", "float64"])
def test_the_type_that_values_are_stored_as_changes_none(folder, storage):
    loaded = load(folder, {}, name="m", quant=Quant(bits=4, storage=storage))
    assert {layer.weight.dtype for layer in layers(loaded)} == {getattr(torch, storage)}
    torch.testing.assert_close(logits(loaded.model), logits(load(folder, {}, name="m", quant=FOUR).model))


def test_eight_bits(folder):
    for layer in layers(load(folder, {}, name="m", quant=Quant(bits=8, outlier_threshold=4.5))):
        assert isinstance(layer, Linear8bitLt)
        assert (layer.weight.dtype, layer.state.threshold, layer.state.has_fp16_weights) == (torch.int8, 4.5, False)
    for layer in layers(load(folder, {}, name="m", quant=Quant(bits=8, finetunable=True, at="load"))):
        assert (layer.weight.dtype, layer.state.has_fp16_weights) == (torch.float32, True)


@pytest.mark.parametrize("quant", [Quant(bits=4, skip_modules=("q_proj",)), Quant(bits=8, skip_modules=("q_proj",))])
def test_skipped_modules_are_skipped_beside_the_head(folder, quant):
    loaded = load(folder, {}, name="m", quant=quant)
    assert not layers(loaded, "q_proj")
    assert len(layers(loaded)) == 2 * 6
    assert type(loaded.model.get_output_embeddings()) is torch.nn.Linear


@pytest.mark.parametrize(("model_args", "dtype"), [({}, "float32"), ({"dtype": "bfloat16"}, "bfloat16")])
def test_the_upstream_keys_are_understood(folder, model_args, dtype):
    (four, *_) = layers(load(folder, {"load_in_4bit": True, **model_args}, name="m"))
    assert (four.weight.quant_type, four.weight.quant_state.nested) == ("nf4", True)
    assert four.compute_dtype == getattr(torch, dtype)
    (eight, *_) = layers(load(folder, {"load_in_8bit": True, "load_in_4bit": False}, name="m"))
    assert isinstance(eight, Linear8bitLt)
    assert not layers(load(folder, {"load_in_4bit": False}, name="m", quant=FOUR))
    (own, *_) = layers(load(folder, {"bnb_4bit_quant_type": "fp4"}, name="m", quant=FOUR))
    assert own.weight.quant_type == "fp4"


@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_four_bits_compute_in_what_the_model_is_loaded_in(tmp_path, monkeypatch, bf16, dtype):
    llama().to(torch.float16).save_pretrained(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(loader, "_cpu_computes_bf16", lambda: bf16)
    loaded = load(tmp_path, {}, name="m", quant=FOUR)
    assert {layer.compute_dtype for layer in layers(loaded)} == {loaded.model.dtype} == {dtype}


# -- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quant", "settings"),
    [
        (FOUR, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
        (Quant(bits=4, type="fp4", double=False), {"load_in_4bit": True}),
        (LLM_INT8, {"load_in_8bit": True}),
        (Quant(bits=8, finetunable=True), {"load_in_8bit": True, "llm_int8_has_fp16_weight": True}),
    ],
)
def test_logits_are_those_of_transformers_with_the_same_settings(folder, quant, settings):
    loaded = load(folder, {}, name="m", quant=quant)
    assert torch.equal(logits(loaded.model), logits(plain(folder, **settings)))


def test_eight_bits_without_a_threshold_are_the_dequantised_weights(folder):
    loaded = load(folder, {}, name="m", quant=Quant(bits=8))
    truth = plain(folder, load_in_8bit=True).dequantize()
    torch.testing.assert_close(logits(loaded.model), logits(truth), rtol=1e-4, atol=1e-4)


def test_the_two_types_of_four_bits_differ(folder):
    nf4, fp4 = (logits(load(folder, {}, name="m", quant=Quant(bits=4, type=type_)).model) for type_ in ("nf4", "fp4"))
    original = logits(AutoModelForCausalLM.from_pretrained(folder))
    assert (nf4 - original).norm() < (fp4 - original).norm()
    assert (nf4 - fp4).norm() > 0.1 * original.norm()


@pytest.mark.parametrize("hidden_size", [32, 48])
@pytest.mark.parametrize("double", [True, False])
def test_shapes_that_the_kernel_for_cpus_cannot_take(tmp_path, hidden_size, double):
    llama(hidden_size).save_pretrained(tmp_path)
    loaded = load(tmp_path, {}, name="m", quant=Quant(bits=4, double=double))
    settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": double}
    truth = plain(tmp_path, **settings).dequantize()
    # Where the kernel takes none of a model's shapes, there is no rounding to bfloat16 either.
    tolerance = 1e-4 if hidden_size == 48 else 0.5
    torch.testing.assert_close(logits(loaded.model), logits(truth), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("quant", [FOUR, Quant(bits=8)])
def test_layers_that_store_their_weights_the_other_way_round(tmp_path, quant):
    random_model(GPT2Config(**{"n_embd": 64, "n_layer": 2, "n_head": 4, **SHAPE})).save_pretrained(tmp_path)
    loaded = load(tmp_path, {}, name="m", quant=quant)
    settings = {f"load_in_{quant.bits}bit": True}
    if quant.bits == 4:
        settings |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    truth = plain(tmp_path, **settings)
    truth = truth.dequantize() if quant.bits == 8 else truth
    torch.testing.assert_close(logits(loaded.model), logits(truth), rtol=1e-4, atol=1e-4)


# -- batch mates ------------------------------------------------------------------------------------------------------


def outliers(model):
    """Let every activation have one column far beyond the others, as large models have."""
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 3] *= 40
    return model


@pytest.fixture(scope="module")
def folder_with_outliers(tmp_path_factory):
    path = tmp_path_factory.mktemp("outliers")
    outliers(llama()).save_pretrained(path)
    return path


def test_in_llm_int8_the_tokens_of_a_pass_share_their_outliers(folder_with_outliers):
    """Why rows of such a model may not share a pass: the fact about bitsandbytes that this engine works around."""
    model = plain(folder_with_outliers, load_in_8bit=True)
    mates = torch.tensor([IDS, IDS[::-1]])
    with torch.inference_mode():
        beside = model(mates).logits[0]
    assert (beside - logits(model)).abs().max() > 1e-2
    assert quantization.couples_rows(load(folder_with_outliers, {}, name="m", quant=LLM_INT8).model)


@pytest.mark.parametrize("quant", [Quant(bits=8), FOUR, Quant(bits=4, compute_dtype="bfloat16")])
def test_no_other_quantised_model_couples_rows(folder_with_outliers, quant):
    loaded = load(folder_with_outliers, {}, name="m", quant=quant)
    with torch.inference_mode():
        beside = loaded.model(torch.tensor([IDS, IDS[::-1]])).logits[0]
    torch.testing.assert_close(beside, logits(loaded.model), rtol=1e-4, atol=1e-4)
    assert not quantization.couples_rows(loaded.model)


def test_a_stream_of_an_eight_bit_model_is_the_same_alone_and_among_others(folder_with_outliers):
    loaded = load(folder_with_outliers, {}, name="m", quant=Quant(bits=8))
    requests = [GenerateRequest(tuple(IDS[i : i + 3 + i]), 8, top_logprobs=5) for i in range(8)]
    engine = engine_over(loaded.model)
    try:
        alone = [run(engine, request)[0] for request in requests]
        together = run(engine, *requests)
    finally:
        engine.close()
    for mine, beside in zip(alone, together, strict=True):
        assert [event.token for event in mine] == [event.token for event in beside]
        for one, other in zip(mine, beside, strict=True):
            assert other.top_logprobs == pytest.approx(one.top_logprobs, abs=1e-3)


# -- what is refused, and said ----------------------------------------------------------------------------------------


def test_without_bitsandbytes_the_extra_is_named(folder, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(MissingExtra, match=r"cogsmith\[quant\]"):
        load(folder, {}, name="m", quant=FOUR)


def test_a_gpu_can_be_demanded(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        load(folder, {}, name="m", quant=Quant(bits=4, require_cuda=True))


def test_every_contradiction_among_the_arguments_is_told(folder):
    wrong = {"load_in_8bit": True, "bnb_4bit_quant_type": "nf4", "llm_int8_threshold": "x"}
    with pytest.raises(UserError, match=r"'x' is no llm_int8_threshold.*bnb_4bit_quant_type = 'nf4' is for 4 bits"):
        load(folder, wrong, name="m")
    with pytest.raises(UserError, match=r"config\.load_in_4bit and config\.load_in_8bit are both true"):
        load(folder, {"load_in_4bit": True, "load_in_8bit": True}, name="m")


def test_no_warning_for_every_matrix_product(folder, caplog):
    with caplog.at_level(logging.WARNING):
        logits(load(folder, {}, name="m", quant=LLM_INT8).model)
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]
