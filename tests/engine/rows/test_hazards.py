"""What only shows in long texts: each hazard that a config announces is real, and each way around it is right.

Plain passes over the text so far are the truth, as a client sees it who asks for one token after the other.
"""

import random

import pytest
import torch
import transformers

from cogsmith.engine.loader import LoadedModel
from cogsmith.engine.rows.batch import whole_cache
from cogsmith.engine.rows.choose import choose_rows
from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.hazards import Hazards, hazards
from cogsmith.engine.rows.padded import PaddedRunner
from cogsmith.engine.rows.recompute import RecomputeRunner
from cogsmith.engine.rows.regimes import RegimesRunner
from cogsmith.engine.rows.solo import SoloRunner
from cogsmith.manifest import Limits

from ..models import SHAPE, VOCAB, plain_logprobs, random_model
from .schedule import deviation

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0, 3.0, 5.0, 8.0],
}
SCALED = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA4 = {"intermediate_size_mlp": 64, "num_local_experts": 2, "head_dim": 8, "no_rope_layer_interval": 2}


def config(family, **changes):
    return getattr(transformers, f"{family}Config")(**{**SHAPE, "num_hidden_layers": 2, "pad_token_id": 0, **changes})


def longrope():
    return config("Phi3", original_max_position_embeddings=32, rope_parameters=dict(LONGROPE))


def llama4(**changes):
    return config("Llama4Text", **LLAMA4, attention_chunk_size=16, **changes)


def padded(forward):
    return PaddedRunner(forward, SoloRunner(forward, lambda: whole_cache(forward.config)))


def texts(*lengths):
    draw = random.Random(3)
    return [[draw.randrange(VOCAB) for _ in range(length)] for length in lengths]


def growing(model, text):
    """What plain passes over a text's beginnings say at their ends."""
    return torch.stack([plain_logprobs(model, text[: end + 1])[-1] for end in range(len(text))])


def off_by(new_runner, model, *lengths):
    asked = texts(*lengths)
    return deviation(new_runner(Forward(model)), asked, [growing(model, text) for text in asked])


@pytest.mark.parametrize("inner", [padded, RecomputeRunner])
def test_rows_that_cross_into_long_angles(inner):
    model = random_model(longrope())
    border = hazards(model.config).one_regime_until
    assert border == 32
    assert off_by(padded, model, 50, 20, 40) > 0.1
    assert off_by(lambda forward: RegimesRunner(lambda: inner(forward), border), model, 50, 20, 32, 33, 64) < 1e-4
    assert off_by(padded, model, 32, 20, 32) < 1e-4


def test_a_back_end_that_is_ruled_out_is_so_beyond_the_border_too():
    loaded = LoadedModel("tiny", random_model(longrope()), None)
    rows = choose_rows(loaded, Limits(max_context=64), allowed=("solo", "recompute"))
    assert (rows.name, rows.max_context) == ("solo", 64)


@pytest.mark.parametrize("kind", ["yarn", "linear", "llama3"])
def test_angles_scaled_once_for_all_are_no_hazard(kind):
    rope = {"rope_type": kind, **SCALED, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    model = random_model(config("Llama", rope_parameters=rope))
    assert hazards(model.config) == Hazards(windows=(None, None))
    assert off_by(padded, model, 50, 20, 40) < 1e-4


def test_nothing_is_defined_beyond_dynamic_angles():
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = random_model(config("Llama", max_position_embeddings=32, rope_parameters=rope))
    assert hazards(model.config).defined_until == 32
    assert off_by(padded, model, 32, 20, 31) < 1e-4
    (text,) = texts(50)
    before = plain_logprobs(model, text[:40])
    plain_logprobs(model, text)
    assert (plain_logprobs(model, text[:40]) - before).abs().max() > 0.1


def test_nothing_is_defined_beyond_doges_window():
    model = random_model(config("Doge", keep_window_size=32))
    assert hazards(model.config).defined_until == 32
    assert off_by(padded, model, 32, 20, 31) < 1e-4
    (text,) = texts(50)
    assert (plain_logprobs(model, text) - growing(model, text)).abs().max() > 0.1


def test_attention_in_chunks_may_be_padded_and_not_packed():
    model = random_model(llama4(attn_temperature_tuning=False))
    assert hazards(model.config) == Hazards(windows=None)
    assert off_by(padded, model, 50, 20, 40) < 1e-4


def test_a_scale_by_column_may_be_padded_up_to_its_first_step():
    model = random_model(llama4(attn_temperature_tuning=True, floor_scale=30))
    assert hazards(model.config).batched_until == 29
    assert off_by(padded, model, 29, 12, 29) < 1e-4
    assert off_by(padded, model, 50, 20, 40) > 1e-2
    assert off_by(lambda forward: SoloRunner(forward, lambda: whole_cache(model.config)), model, 50, 20, 40) < 1e-4


def test_windows_are_those_of_transformers_masks():
    assert hazards(config("Mistral", sliding_window=8)).windows == (8, 8)
    assert hazards(config("Gemma2", sliding_window=8)).windows == (8, None)
    # Attention is not told of this window: it is in the mask alone.
    assert hazards(config("Phimoe", sliding_window=8, num_local_experts=2)).windows == (8, 8)
    assert hazards(config("Falcon", num_kv_heads=2)).windows == (None, None)


def test_recurrent_layers_may_not_be_packed():
    assert hazards(config("Qwen3Next", layer_types=["linear_attention", "full_attention"])).windows is None
