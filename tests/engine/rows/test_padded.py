"""Rows in and out of the batch, in any order a scheduler may come up with, equal plain passes."""

import random

import pytest
import torch
import transformers

from cogsmith.engine.rows.batch import Batch, whole_cache
from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.padded import PaddedRunner
from cogsmith.engine.rows.recompute import RecomputeRunner
from cogsmith.engine.rows.runner import RowChunk
from cogsmith.engine.rows.solo import SoloRunner, UnchunkedRunner

from ..models import VOCAB, plain_logprobs, random_model, tiny_llama
from .schedule import deviation

SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": None,
    "bos_token_id": 1,
    "pad_token_id": 0,
}


def llama():
    return tiny_llama()


def windowed():
    return random_model(transformers.Gemma2Config(**SHAPE, num_hidden_layers=2, head_dim=8, sliding_window=8))


def convolutional():
    return random_model(transformers.Lfm2Config(**SHAPE, num_hidden_layers=2, layer_types=["conv", "full_attention"]))


def parallel_hybrid():
    """Keys and a recurrent state in the same layer."""
    sizes = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
    return random_model(transformers.FalconH1Config(**SHAPE, num_hidden_layers=2, **sizes), scale=3.0)


def recurrent():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    return random_model(transformers.MambaConfig(vocab_size=VOCAB, **sizes), scale=3.0)


def padded(forward):
    return PaddedRunner(forward, SoloRunner(forward, lambda: whole_cache(forward.config)))


def padded_unchunked(forward):
    return PaddedRunner(forward, UnchunkedRunner(forward, lambda: whole_cache(forward.config)))


def solo(forward):
    return SoloRunner(forward, lambda: transformers.DynamicCache(config=forward.config))


CASES = [
    *((model, padded) for model in (llama, windowed, convolutional, parallel_hybrid)),
    *((model, padded_unchunked) for model in (llama, recurrent)),
    (windowed, solo),
    (llama, RecomputeRunner),
]


@pytest.mark.parametrize(("new_model", "new_runner"), CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_rows_come_pause_jump_and_go(new_model, new_runner, seed):
    model, draw = new_model(), random.Random(seed)
    texts = [[draw.randrange(VOCAB) for _ in range(draw.randint(2, 50))] for _ in range(6)]
    expected = [plain_logprobs(model, text) for text in texts]
    assert deviation(new_runner(Forward(model)), texts, expected, seed=seed) < 1e-4


def test_a_state_that_goes_on_by_single_tokens_only_is_not_taken_for_another():
    """Why there is an unchunked runner: several tokens behind others are computed as if nothing came before."""
    model, text = recurrent(), [(7 + 31 * i) % VOCAB for i in range(40)]
    assert deviation(padded(Forward(model)), [text], [plain_logprobs(model, text)]) > 0.1


@pytest.mark.parametrize("new_runner", [padded, padded_unchunked, solo, RecomputeRunner])
@torch.inference_mode()
def test_a_row_that_was_never_seen_can_be_closed_and_a_number_used_again(new_runner):
    model = tiny_llama()
    runner = new_runner(Forward(model))
    runner.close_row(7)
    for text in ([1, 2, 3], [4, 5, 6]):
        runner.forward([RowChunk(7, 0, text[:2], 0)])
        logits = runner.forward([RowChunk(7, 2, text[2:], 1)])
        actual = torch.log_softmax(logits[0].float(), dim=-1)
        torch.testing.assert_close(actual, plain_logprobs(model, text)[-1], atol=1e-4, rtol=0)
        runner.close_row(7)


@torch.inference_mode()
def test_nobody_wants_logits_of_a_first_chunk():
    assert padded_unchunked(Forward(tiny_llama())).forward([RowChunk(0, 0, [1, 2], 0)]).shape == (0, VOCAB)


@torch.inference_mode()
def test_what_leaves_a_batch_takes_its_padding_along():
    forward = Forward(tiny_llama())
    batch = Batch()
    for row, length in enumerate((3, 9, 5)):
        cache = whole_cache(forward.config)
        forward(torch.tensor([list(range(length))]), cache)
        batch.join(row, cache, length)
    assert batch.cache.layers[0].keys.shape[::2] == (3, 9)
    assert batch.take(2).layers[0].keys.shape[::2] == (1, 5)
    assert batch.cache.layers[0].keys.shape[::2] == (2, 9)
    batch.leave(1)
    assert batch.cache.layers[0].keys.shape[::2] == (1, 3)


def test_a_layer_that_keeps_what_is_not_known_here_is_refused():
    config = transformers.DeepseekV32Config(**{**SHAPE, "num_key_value_heads": 4}, num_hidden_layers=2)
    with pytest.raises(TypeError, match="DynamicIndexedLayer"):
        whole_cache(config)
