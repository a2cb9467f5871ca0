"""The memory estimate, by hand."""

from __future__ import annotations

import pytest

from cogsmith.config.model import Model
from cogsmith.manifest import Limits
from cogsmith.quant import Quant
from cogsmith.workdir.memory import estimate

LLAMA_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "max_position_embeddings": 131072,
}


def model(**settings: object) -> Model:
    return Model("tiny", "hf:org/repo", **settings)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, 16_000),
        # Where it counts, in a conversion, the files' size shows it already.
        ({"output_precision": "fp32"}, 16_000),
        ({"output_precision": "bf16"}, 16_000),
        ({"model_args": {"dtype": "float32"}}, 32_000),
        ({"quant": Quant(bits=8)}, 8_100),
        ({"quant": Quant(bits=8, finetunable=True)}, 16_000),
        ({"quant": Quant(bits=4)}, 4_130),
        ({"quant": Quant(bits=4, double=False)}, 4_500),
        ({"quant": Quant(bits=4, double=False), "model_args": {"dtype": "float32"}}, 4_500),
    ],
)
def test_weights(settings, weights):
    assert estimate(model(**settings), 16_000, 8_000, None).weights == weights


def test_embeddings_and_head_keep_their_bits():
    shape = {"vocab_size": 100, "hidden_size": 20, "tie_word_embeddings": False}
    quantised = model(quant=Quant(bits=4, double=False))
    assert estimate(quantised, 16_000, 8_000, shape).weights == 2 * 4_000 + 4_000 * 4.5 / 8
    tied = estimate(quantised, 16_000, 8_000, {**shape, "tie_word_embeddings": True})
    assert (tied.weights, tied.unquantised) == (2 * 2_000 + 6_000 * 4.5 / 8, 16_000)


def test_unknown_parameters_fall_back_to_the_files():
    found = estimate(model(output_precision="fp32"), 16_000, None, None)
    assert (found.weights, found.cache) == (16_000, None)
    assert found.total == 16_000 + 2**30


def test_cache_of_a_known_shape():
    # 128 KiB per token is what Llama 3.1 8B is known for.
    found = estimate(model(limits=Limits(max_batch_size=2)), 0, None, LLAMA_8B)
    assert found.cache == 128 * 1024 * 4096 * 2
    short = estimate(model(limits=Limits(max_batch_size=2, max_context=100)), 0, None, LLAMA_8B)
    assert short.cache == 128 * 1024 * 100 * 2
