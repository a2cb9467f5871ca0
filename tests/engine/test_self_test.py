"""The start-up test must see a fault through a model's own noise, and must not take the noise for a fault."""

import pytest
import torch
import transformers
from transformers import DynamicCache

from cogsmith.engine.loader import LoadedModel
from cogsmith.engine.rows.choose import choose_rows
from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.padded import PaddedRunner
from cogsmith.engine.rows.self_test import SelfTest
from cogsmith.engine.rows.solo import SoloRunner
from cogsmith.errors import UserError
from cogsmith.manifest import Limits

from .models import VOCAB, random_model, tiny_llama

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class Unmasked(Forward):
    """A model that ignores its attention mask, as some architectures do without a word."""

    def __call__(self, *arguments, attention_mask=None, **keywords):
        return super().__call__(*arguments, **keywords)


class Unplaced(Forward):
    """A model that is not told where its padded rows stand."""

    def __call__(self, *arguments, position_ids=None, **keywords):
        return super().__call__(*arguments, **keywords)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_ordinary_model_gets_the_packed_back_end_in_any_dtype(dtype):
    name = choose_rows(LoadedModel("tiny", tiny_llama().to(dtype), None), Limits()).name
    assert name == "packed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", [Unmasked, Unplaced])
def test_a_fault_in_padding_is_seen_in_any_dtype(dtype, fault):
    model = tiny_llama().to(dtype)
    faulty = fault(model)
    runner = PaddedRunner(faulty, SoloRunner(faulty, DynamicCache))
    assert not SelfTest(Forward(model), VOCAB).passes(runner)


def test_a_cache_that_forgets_is_seen():
    class Forgetful(DynamicCache):
        def update(self, keys, values, layer_idx, *arguments, **keywords):
            keys, values = super().update(keys, values, layer_idx, *arguments, **keywords)
            return keys, values * 0.9

    forward = Forward(tiny_llama())
    self_test = SelfTest(forward, VOCAB)
    assert self_test.passes(SoloRunner(forward, DynamicCache))
    assert not self_test.passes(SoloRunner(forward, Forgetful))


def test_a_noisy_model_is_still_decoded_in_batches():
    """Deep and loud enough for a plain pass in bfloat16 to differ from itself by tenths, as real models do."""
    config = tiny_llama(num_hidden_layers=12, hidden_size=64, intermediate_size=128).config
    model = random_model(config, scale=20.0).to(torch.bfloat16)
    assert SelfTest(Forward(model), VOCAB).tolerance > 0.1
    assert choose_rows(LoadedModel("noisy", model, None), Limits()).name == "packed"


def test_a_model_that_gives_nan_gets_the_last_resort():
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    assert choose_rows(LoadedModel("broken", model, None), Limits()).name == "recompute"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["Roberta", "Bert", "XLM", "RemBert"])
def test_a_model_that_reads_in_both_directions_is_refused(family, dtype):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    named = {"emb_dim": 32, "n_layers": 2, "n_heads": 4} if family == "XLM" else {**shape, "pad_token_id": 0}
    config = getattr(transformers, f"{family}Config")(vocab_size=VOCAB, max_position_embeddings=128, **named)
    model = random_model(config, scale=20.0).to(dtype)
    with pytest.raises(UserError, match=r"(?s)in both directions.*task = \"encoder\""):
        choose_rows(LoadedModel("both", model, None), Limits())
    config.is_decoder = config.causal = True
    choose_rows(LoadedModel("one", random_model(config, scale=20.0).to(dtype), None), Limits())
