"""The engine's numbers against plain forward passes of the same model."""

import random

import pytest

from cogsmith.engine.request import FailedEvent, GenerateRequest, Sampling, ScoreRequest

from .models import VOCAB, engine_over, plain_logprobs, run, tiny_llama

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def engine(model):
    engine = engine_over(model, max_batch_size=4)
    yield engine
    engine.close()


def ragged_requests(count, *, seed=0):
    draw = random.Random(seed)
    return [
        GenerateRequest(
            tuple(draw.randrange(VOCAB) for _ in range(draw.randint(1, 60))),
            max_tokens=draw.randint(1, 25),
            bias={draw.randrange(VOCAB): draw.uniform(-100, 100) for _ in range(draw.choice([0, 3, 150]))},
            top_logprobs=draw.randint(0, 6),
        )
        for _ in range(count)
    ]


def check_generation(model, request, events):
    """Every token greedy under the request's bias, every number that of a plain forward pass."""
    assert not isinstance(events[-1], FailedEvent), events[-1]
    ids = [*request.prompt, *(event.token for event in events)]
    plain = plain_logprobs(model, ids)
    for step, event in enumerate(events):
        expected = plain[len(request.prompt) + step - 1].clone()
        for token, value in request.bias.items():
            expected[token] += value
        expected = expected.log_softmax(-1)
        assert event.logprob == pytest.approx(expected.max().item(), abs=TOLERANCE)
        assert expected[event.token] == pytest.approx(expected.max().item(), abs=TOLERANCE)
        for token, logprob in event.top_logprobs.items():
            assert logprob == pytest.approx(expected[token].item(), abs=TOLERANCE)
    assert [event.finish_reason for event in events] == [None] * (request.max_tokens - 1) + ["length"]


def test_ragged_masked_requests_that_share_batches_equal_plain_forwards(model, engine):
    """Twenty requests through four rows: all but the first four come late, all leave at different times."""
    requests = ragged_requests(20)
    for request, events in zip(requests, run(engine, *requests), strict=True):
        check_generation(model, request, events)


def test_a_request_gives_the_same_alone_and_among_others(engine):
    request, *others = ragged_requests(9, seed=1)
    (alone,) = run(engine, request)
    among = run(engine, *others[:4], request, *others[4:])[4]
    assert [event.token for event in among] == [event.token for event in alone]
    assert [event.logprob for event in among] == pytest.approx([event.logprob for event in alone], abs=TOLERANCE)


def test_a_seeded_request_draws_the_same_tokens_alone_and_among_others(engine):
    request = GenerateRequest((5, 6, 7), 20, Sampling(temperature=1.5, top_p=0.95, seed=11))
    (alone,) = run(engine, request)
    among = run(engine, *ragged_requests(3, seed=2), request, *ragged_requests(3, seed=3))[3]
    assert [event.token for event in among] == [event.token for event in alone]


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


@pytest.mark.parametrize(("num_prompt", "num_scored"), [(1, 1), (1, 5), (30, 1), (30, 40), (0, 1), (0, 2), (0, 50)])
def test_scores_equal_a_plain_forward(model, engine, num_prompt, num_scored):
    ids = [(3 + 17 * i) % VOCAB for i in range(num_prompt + num_scored)]
    (events,) = run(engine, ScoreRequest(tuple(ids[:num_prompt]), tuple(ids[num_prompt:])))
    plain = plain_logprobs(model, ids)
    expected = [plain[i - 1, ids[i]].item() if i else 0.0 for i in range(num_prompt, len(ids))]
    assert [event.token for event in events] == ids[num_prompt:]
    assert [event.logprob for event in events] == pytest.approx(expected, abs=TOLERANCE)
    assert [event.finish_reason for event in events] == [None] * (num_scored - 1) + ["stop"]
    assert all(event.top_logprobs is None for event in events)


def test_scoring_and_generating_share_a_batch(model, engine):
    requests = ragged_requests(4, seed=4)
    scored = ScoreRequest((1, 2, 3), tuple(range(4, 60)))
    *generated, scores = run(engine, *requests, scored)
    for request, events in zip(requests, generated, strict=True):
        check_generation(model, request, events)
    plain = plain_logprobs(model, [*scored.prompt, *scored.scored])
    assert [event.logprob for event in scores] == pytest.approx(
        [plain[i + 2, token].item() for i, token in enumerate(scored.scored)], abs=TOLERANCE
    )
