"""Packed weights: the same values, the same answers, nothing held twice, and nothing broken that reads its weights."""

import pytest
import torch
from torch import nn
from transformers import GPTNeoXConfig, MambaConfig

from cogsmith.engine.prepack import PackedLinear, prepack

from .models import VOCAB, plain_logprobs, random_model, tiny_llama

IDS = [(7 + 31 * i) % VOCAB for i in range(40)]


def packed_layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_the_values_stay_and_the_answers_too(dtype, tied):
    model = tiny_llama(tie_word_embeddings=tied).to(dtype)
    originals = {name: weight.clone() for name, weight in model.state_dict().items()}
    plain, parameters = plain_logprobs(model, IDS), model.num_parameters()
    assert prepack(model) == 3 * 7 + 1
    for name, layer in packed_layers(model).items():
        assert torch.equal(layer.weight.to_dense(), originals[f"{name}.weight"])
    # bfloat16's noise on this model is tenths; a wrong layout would be off by whole units.
    torch.testing.assert_close(plain_logprobs(model, IDS), plain, atol=1e-4 if dtype == torch.float32 else 0.5, rtol=0)
    assert model.num_parameters() == parameters
    assert model.get_output_embeddings().weight.shape[0] == VOCAB


def test_only_a_tied_head_is_held_twice():
    model = tiny_llama(tie_word_embeddings=True)
    before = model.get_memory_footprint()
    prepack(model)
    assert model.get_memory_footprint() == before + 4 * VOCAB * 32


def test_biases_stay():
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = random_model(GPTNeoXConfig(vocab_size=VOCAB, **shape))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.normal_()
    plain = plain_logprobs(model, IDS)
    assert prepack(model) == 2 * 4 + 1
    torch.testing.assert_close(plain_logprobs(model, IDS), plain, atol=1e-4, rtol=0)


def test_a_weight_that_the_architecture_reads_itself_stays():
    model = random_model(MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=8))
    plain = plain_logprobs(model, IDS)
    prepack(model)
    kinds = {name.rsplit(".", 1)[-1] for name in packed_layers(model)}
    assert "in_proj" in kinds
    assert "dt_proj" not in kinds
    torch.testing.assert_close(plain_logprobs(model, IDS), plain, atol=1e-4, rtol=0)


def test_a_layer_in_two_places_is_packed_once():
    model = tiny_llama()
    model.model.layers[2].mlp = model.model.layers[0].mlp
    plain = plain_logprobs(model, IDS)
    assert prepack(model) == 3 * 7 + 1 - 3
    assert model.model.layers[2].mlp.up_proj is model.model.layers[0].mlp.up_proj
    torch.testing.assert_close(plain_logprobs(model, IDS), plain, atol=1e-4, rtol=0)


def test_a_model_that_cannot_be_tried_is_left_alone():
    model = tiny_llama()
    model.generate = lambda *_, **__: 1 / 0
    assert prepack(model) == 0
    assert not packed_layers(model)
    assert type(model.lm_head) is nn.Linear


def test_half_precision_is_left_alone():
    assert prepack(tiny_llama().to(torch.float16)) == 0
