"""Text predictions: whole characters, templates, and plain transformers' own greedy text."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from cogsmith.detokenize import TextDecoder
from cogsmith.engine.request import Sampling
from cogsmith.errors import RequestError
from cogsmith.predictor.inputs import TextInputs
from cogsmith.predictor.mailbox import Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.prompting import encode
from cogsmith.predictor.text import plain_decode, stream_text

from ..engine.models import byte_tokenizer, engine_over, tiny_llama

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    fast = byte_tokenizer(eos_token="<end>")
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_llama(vocab_size=len(tokenizer))


@pytest.fixture(scope="module")
def engine(model, tokenizer):
    engine = engine_over(model, tokenizer)
    yield engine
    engine.close()


def text_of(engine, tokenizer, **inputs):
    meter = Meter(lambda name, value: None)
    return list(stream_text(TextInputs(**inputs), engine, tokenizer, Mailbox(30), meter))


@pytest.mark.parametrize("text", ["plain words", "naïve café", "日本語のテキスト", "a 👩‍👩‍👧 family", "\n\t x", ""])
def test_pieces_are_whole_characters_and_join_to_the_text(tokenizer, text):
    decoder = TextDecoder(plain_decode(tokenizer))
    pieces = [decoder.push(token) for token in tokenizer.encode(text)] + [decoder.flush()]
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_half_a_character_at_the_end_comes_out_as_a_replacement(tokenizer):
    decoder = TextDecoder(plain_decode(tokenizer))
    pieces = [decoder.push(token) for token in tokenizer.encode("aé")[:-1]] + [decoder.flush()]
    assert "".join(pieces) == "a\N{REPLACEMENT CHARACTER}"


@torch.no_grad()
def test_the_text_is_that_of_plain_greedy_generation(engine, model, tokenizer):
    ids = tokenizer("Hello there", return_tensors="pt").input_ids
    expected = model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert "".join(text_of(engine, tokenizer, prompt="Hello there", max_new_tokens=20)) == tokenizer.decode(expected)


def test_a_seed_makes_sampling_repeatable(engine, tokenizer):
    def sampled(seed):
        return text_of(engine, tokenizer, prompt="x", max_new_tokens=30, sampling=Sampling(temperature=2.0, seed=seed))

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_messages_go_through_the_models_template(tokenizer):
    (prompt,) = encode(TextInputs(messages=[{"role": "user", "content": "hi"}]), tokenizer)
    assert tokenizer.decode(prompt.ids) == "[user]hi[assistant]"


def test_what_an_instruction_is_about_follows_it_in_the_models_template(tokenizer):
    (prompt,) = encode(TextInputs(instruction="Translate.", input="Guten Tag"), tokenizer)
    assert tokenizer.decode(prompt.ids) == "[user]Translate.\n\nGuten Tag[assistant]"


def test_a_template_that_refuses_says_why(tokenizer):
    with pytest.raises(RequestError, match="no system role"):
        encode(TextInputs(messages=[{"role": "system", "content": "x"}]), tokenizer)


@pytest.mark.parametrize("inputs", [{}, {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}])
def test_exactly_one_kind_of_input_must_be_given(tokenizer, inputs):
    with pytest.raises(RequestError, match="prompt"):
        encode(TextInputs(**inputs), tokenizer)


def test_a_model_without_tokenizer_or_template_says_so(tokenizer):
    with pytest.raises(RequestError, match="without a tokenizer"):
        encode(TextInputs(prompt="a"), None)
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(RequestError, match="no chat template"):
        encode(TextInputs(messages=[{"role": "user", "content": "b"}]), bare)
