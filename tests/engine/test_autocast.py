"""`config.autocast_dtype` against transformers' own model under torch's autocast."""

import pytest
import torch

from cogsmith.engine import autocast
from cogsmith.engine.encoder_model import load_encoder
from cogsmith.engine.loader import load
from cogsmith.engine.request import GenerateRequest, ScoreRequest
from cogsmith.errors import UserError

from .models import engine_over, run, tiny_llama


@pytest.fixture
def folder(tmp_path):
    tiny_llama(vocab_size=256).save_pretrained(tmp_path)
    return tmp_path


def test_a_pass_is_that_of_torchs_autocast(folder):
    model = load(folder, {"autocast_dtype": "bfloat16", "dtype": "float32"}, name="m").model
    seen = []
    model.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        plain = tiny_llama(vocab_size=256)
        exact = plain(input_ids=ids).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = plain(input_ids=ids).logits
    assert seen == [True]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits, expected)
    assert not torch.equal(expected.float(), exact)


def test_the_engine_serves_it(folder):
    loaded = load(folder, {"autocast_dtype": "bfloat16", "dtype": "float32"}, name="m")
    engine = engine_over(loaded.model)
    try:
        tokens = [event.token for event in run(engine, GenerateRequest((5, 6, 7), 8))[0]]
        (scored,) = run(engine, ScoreRequest((5, 6, 7), tuple(tokens)))
    finally:
        engine.close()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = tiny_llama(vocab_size=256)(input_ids=torch.tensor([[5, 6, 7, *tokens]])).logits[0].float()
    expected = logits.log_softmax(-1)[2:-1].gather(-1, torch.tensor(tokens)[:, None])[:, 0]
    assert [event.logprob for event in scored] == pytest.approx(expected.tolist(), abs=0.05)


def test_an_encoder_too(folder):
    encoder = load_encoder(folder, {"autocast_dtype": "bfloat16"}, name="m", task="decoder")
    with torch.no_grad():
        assert torch.is_autocast_enabled("cpu") is False
        hidden = encoder.model.layers[0].mlp(encoder.model.embed_tokens(torch.tensor([[1, 2]])))
    assert hidden.dtype == torch.float32
    seen = []
    encoder.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    encoder.model(input_ids=torch.tensor([[1, 2]]))
    assert seen == [True]


def test_float32_is_no_casting_and_a_word_is_no_type():
    assert autocast.taken({"autocast_dtype": "float32", "a": 1}) == ({"a": 1}, None)
    assert autocast.taken({"a": 1}) == ({"a": 1}, None)
    with pytest.raises(UserError, match="int8"):
        autocast.taken({"autocast_dtype": "int8"})
