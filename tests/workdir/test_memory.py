"""The memory estimate, by hand."""

from __future__ import annotations

import pytest

from cogsmith.config.model import Model
from cogsmith.manifest import Limits
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
        ({"model_args": {"load_in_8bit": True}}, 8_100),
        ({"model_args": {"load_in_4bit": True}}, 4_500),
    ],
)
def test_weights(settings, weights):
    assert estimate(model(**settings), 16_000, 8_000, None).weights == weights


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
