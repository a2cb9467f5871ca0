"""Prompts that take several steps, against plain forward passes: how many is the engine's own matter.

That all its numbers are a plain forward pass's, the conformance suite has for every engine.
"""

import pytest

from cogsmith.engine.request import FailedEvent, GenerateRequest

from .models import engine_over, plain_logprobs, run, tiny_llama

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def check_generation(model, request, events):
    """Every token greedy, every number that of a plain forward pass."""
    assert not isinstance(events[-1], FailedEvent), events[-1]
    ids = [*request.prompt, *(event.token for event in events)]
    plain = plain_logprobs(model, ids)
    for step, event in enumerate(events):
        expected = plain[len(request.prompt) + step - 1]
        assert event.logprob == pytest.approx(expected.max().item(), abs=TOLERANCE)
        assert expected[event.token] == pytest.approx(expected.max().item(), abs=TOLERANCE)
    assert [event.finish_reason for event in events] == [None] * (request.max_tokens - 1) + ["length"]


def test_a_prompt_longer_than_a_steps_budget_equals_plain_forwards(model):
    engine = engine_over(model, max_batch_size=2)
    engine._stepper.scheduler.max_prompt_tokens = 7
    requests = [GenerateRequest(tuple(range(100)), 5), GenerateRequest(tuple(range(50, 90)), 9)]
    for request, events in zip(requests, run(engine, *requests), strict=True):
        check_generation(model, request, events)
    engine.close()


def test_more_decoding_rows_than_prompt_tokens_in_a_step(model):
    """A prompt still advances in whole chunks; rows that decode beside it come and go."""
    engine = engine_over(model, max_batch_size=8)
    engine._stepper.scheduler.max_prompt_tokens = 4
    requests = [*(GenerateRequest((i + 1, 2), 4 + 3 * i) for i in range(6)), GenerateRequest(tuple(range(90)), 5)]
    for request, events in zip(requests, run(engine, *requests), strict=True):
        check_generation(model, request, events)
    engine.close()
