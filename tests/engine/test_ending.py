"""When a stream ends, and what it says then."""

import pytest
import torch

from cogsmith.engine.request import GenerateRequest

from .models import VOCAB, engine_over, plain_logprobs, run, tiny_llama


class Vocabulary:
    """A tokenizer's vocabulary of `size` tokens with an end token of its own."""

    def __init__(self, size, eos_token_id=None):
        self.size = size
        self.eos_token_id = eos_token_id

    def get_vocab(self):
        return {str(i): i for i in range(self.size)}


@pytest.fixture
def model():
    return tiny_llama()


def events_of(model, request, tokenizer=None, **limits):
    engine = engine_over(model, tokenizer, **limits)
    try:
        (events,) = run(engine, request)
        return events
    finally:
        engine.close()


@pytest.mark.parametrize("eos", [50, [60, 50], [50, 60]])
def test_any_of_the_models_eos_ids_stops_and_is_emitted(model, eos):
    model.generation_config.eos_token_id = eos
    force_third = GenerateRequest((1, 2), 10, bias={50: 100.0})
    events = events_of(model, force_third)
    assert [(event.token, event.finish_reason) for event in events] == [(50, "stop")]
    assert events[0].logprob > -1e-3


def test_eos_ids_of_config_generation_config_and_tokenizer_all_count(model):
    model.config.eos_token_id = 50
    model.generation_config.eos_token_id = [60]
    for eos in (50, 60, 70):
        (event,) = events_of(model, GenerateRequest((1,), 10, bias={eos: 100.0}), Vocabulary(VOCAB, 70))
        assert (event.token, event.finish_reason) == (eos, "stop")


def test_an_eos_on_the_last_allowed_token_says_stop(model):
    model.generation_config.eos_token_id = 50
    (event,) = events_of(model, GenerateRequest((1,), 1, bias={50: 100.0}))
    assert event.finish_reason == "stop"


@pytest.mark.parametrize("max_tokens", [1, 2, 7])
def test_max_tokens_says_length_on_the_last(model, max_tokens):
    events = events_of(model, GenerateRequest((1, 2, 3), max_tokens))
    assert [event.finish_reason for event in events] == [None] * (max_tokens - 1) + ["length"]


def test_the_contexts_end_says_length(model):
    events = events_of(model, GenerateRequest(tuple(range(120)), 100))
    assert len(events) == 8
    assert events[-1].finish_reason == "length"
    plain = plain_logprobs(model, [*range(120), *(event.token for event in events)])
    assert events[-1].logprob == pytest.approx(plain[126].max().item(), abs=1e-4)


def test_a_servers_limit_narrows_the_context(model):
    assert len(events_of(model, GenerateRequest(tuple(range(10)), 100), max_context=16)) == 6


def test_model_defaults_for_sampling_never_apply(model):
    """A generation config's temperature, top_k and penalties are another program's business."""
    model.generation_config.update(temperature=5.0, top_k=1, repetition_penalty=9.0, do_sample=True)
    request = GenerateRequest((1, 2, 3), 5, top_logprobs=3)
    events = events_of(model, request)
    plain = plain_logprobs(model, [1, 2, 3, *(event.token for event in events)])
    for step, event in enumerate(events):
        assert event.token == plain[2 + step].argmax()
        assert len(event.top_logprobs) == 3


def test_ids_that_the_tokenizer_cannot_decode_are_never_sampled(model):
    with torch.no_grad():
        model.lm_head.weight[150:] = 100 * model.lm_head.weight[150:]
    for event in events_of(model, GenerateRequest((1, 2, 3), 20, top_logprobs=5), Vocabulary(150)):
        assert event.token < 150
        assert max(event.top_logprobs) < 150
