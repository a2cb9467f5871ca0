"""What is computed once is not computed again, and the numbers are those of a plain forward pass all the same."""

import random

import pytest
import torch

from cogsmith.engine.request import FailedEvent, GenerateRequest, Sampling, ScoreRequest

from .models import VOCAB, engine_over, plain_logprobs, run, tiny_llama

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model():
    return tiny_llama(max_position_embeddings=512)


class Counted:
    """An engine whose row back-end counts the tokens that it runs."""

    def __init__(self, model, **limits):
        self.engine = engine_over(model, **limits)
        self.num_run = 0
        runner = self.engine._stepper._runner
        forward = runner.forward

        def counted(chunks):
            self.num_run += sum(len(chunk.tokens) for chunk in chunks)
            return forward(chunks)

        runner.forward = counted

    def __enter__(self):
        assert self.engine.info.details["runner"] == "packed"
        return self

    def __exit__(self, *exception):
        self.engine.close()


def text(length, seed=0):
    draw = random.Random(seed)
    return tuple(draw.randrange(VOCAB) for _ in range(length))


def check(model, request, events):
    """Every log-probability equals a plain pass over the same tokens, and greedy tokens are the likeliest."""
    ids = [*request.prompt, *(event.token for event in events)]
    plain = plain_logprobs(model, ids)
    for position, event in enumerate(events, start=len(request.prompt)):
        assert event.logprob == pytest.approx(plain[position - 1, event.token].item(), abs=TOLERANCE)
        if isinstance(request, GenerateRequest) and request.sampling.temperature == 0:
            assert event.token == plain[position - 1].argmax()


def test_a_growing_prompt_computes_only_what_is_new(model):
    with Counted(model, max_batch_size=4) as counted:
        prompt = text(70)
        for turn in range(6):
            request = GenerateRequest(prompt, 5)
            before = counted.num_run
            (events,) = run(counted.engine, request)
            check(model, request, events)
            # Three new tokens, the answer's last token, whose keys nobody needed, and those decoded.
            assert counted.num_run - before == (70 if turn == 0 else 3 + 1) + 4
            prompt = (*prompt, *(event.token for event in events), *text(3, seed=turn))


def test_options_over_one_prompt_compute_it_once(model):
    prompt = text(100)
    scores = [ScoreRequest(prompt, text(1 + i % 4, seed=i)) for i in range(20)]
    with Counted(model, max_batch_size=8) as counted:
        for request, events in zip(scores, run(counted.engine, *scores), strict=True):
            check(model, request, events)
        options = sum(len(request.scored) for request in scores)
        assert counted.num_run <= 100 + options


def test_branches_of_a_prompt_compute_it_once(model):
    prompt = text(90)
    branches = [GenerateRequest(prompt, 4, Sampling(temperature=1.0, seed=i)) for i in range(8)]
    with Counted(model, max_batch_size=8) as counted:
        for request, events in zip(branches, run(counted.engine, *branches), strict=True):
            check(model, request, events)
        assert counted.num_run <= 90 + 8 * 4


def test_without_the_cache_everything_is_computed_with_the_same_answer(model):
    prompt = text(90)
    cached, anew = GenerateRequest(prompt, 5), GenerateRequest(prompt, 5, use_cache=False)
    with Counted(model, max_batch_size=8) as counted:
        (first,) = run(counted.engine, cached)
        before = counted.num_run
        for events in run(counted.engine, anew, anew, anew):
            check(model, anew, events)
            assert [event.token for event in events] == [event.token for event in first]
        assert counted.num_run - before == 3 * (90 + 4)


def test_texts_that_part_anywhere_share_their_beginning_and_nothing_else(model):
    stem = text(60)
    requests = [GenerateRequest((*stem[:cut], *text(20, seed=cut)), 6) for cut in range(1, 60, 3)]
    with Counted(model, max_batch_size=5) as counted:
        for request, events in zip(requests, run(counted.engine, *requests), strict=True):
            check(model, request, events)
    draw = random.Random(2)
    with Counted(model, max_batch_size=3, kv_cache_bytes=60_000) as counted:
        for _ in range(10):
            some = draw.sample(requests, 6)
            for request, events in zip(some, run(counted.engine, *some), strict=True):
                check(model, request, events)


def test_too_little_memory_for_all_rows_delays_them_and_ends_none(model):
    requests = [GenerateRequest(text(30, seed=i), 60, Sampling(temperature=1.0, seed=i)) for i in range(8)]
    with Counted(model, max_batch_size=8) as counted:
        enough = run(counted.engine, *requests)
    # Room for about 250 tokens, where 8 times 90 are wanted.
    bytes_per_token = 3 * 2 * 2 * 8 * 4
    with Counted(model, max_batch_size=8, kv_cache_bytes=250 * bytes_per_token) as counted:
        assert counted.engine.info.max_context < 260
        too_little = run(counted.engine, *requests)
        assert counted.num_run > sum(30 + 59 for _ in requests)
    for request, events, expected in zip(requests, too_little, enough, strict=True):
        assert [event.token for event in events] == [event.token for event in expected]
        check(model, request, events)


def test_a_text_may_take_all_the_memory_there_is(model):
    bytes_per_token = 3 * 2 * 2 * 8 * 4
    with Counted(model, max_batch_size=4, kv_cache_bytes=64 * bytes_per_token) as counted:
        assert counted.engine.info.max_context == 64
        requests = [GenerateRequest(text(10, seed=i), 100) for i in range(3)]
        for request, events in zip(requests, run(counted.engine, *requests), strict=True):
            assert len(events) == 54
            assert events[-1].finish_reason == "length"
            check(model, request, events)


def test_a_copied_page_brings_no_infinities_of_the_text_it_comes_from():
    """A mask hides them, but 0 times infinity is no number."""
    model = tiny_llama()
    engine = engine_over(model)
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = float("inf")
    beginning = (20, 21, 22, 23, 24, 25)
    run(engine, GenerateRequest(beginning, 1))
    ((failed,),) = run(engine, GenerateRequest((*beginning, 7, 30, 31), 1))
    sound = ScoreRequest((*beginning, 40), (41,))
    (events,) = run(engine, sound)
    engine.close()
    assert isinstance(failed, FailedEvent)
    check(model, sound, events)


def test_a_beginning_that_overflowed_is_not_passed_on():
    """Tokens before the faulty one may be spoiled too: a mask hides it from them, but 0 times infinity is no number."""
    model = tiny_llama()
    engine = engine_over(model)
    beginning = text(40, seed=3)
    assert 7 not in beginning
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = float("inf")
    sound = [GenerateRequest((*beginning, 40 + i), 5) for i in range(4)]
    ((failed,), *results) = run(engine, GenerateRequest((*beginning, 7, 30, 31), 1), *sound)
    engine.close()
    assert isinstance(failed, FailedEvent)
    for request, events in zip(sound, results, strict=True):
        check(model, request, events)
