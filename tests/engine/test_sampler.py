"""The sampler against transformers' own logits processors."""

import math

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cogsmith.engine.answer import Wanted
from cogsmith.engine.ranking import likeliest
from cogsmith.engine.request import GenerateRequest, Sampling, ScoreRequest
from cogsmith.engine.sampler import sample, score
from cogsmith.engine.sequence import Sequence

from .sampling import VOCAB, book, logits, one, sequence


def test_greedy_takes_the_likeliest_token_with_its_normalised_logprob():
    scores = logits()
    answer = one(scores)
    assert answer.token == scores[0].argmax()
    assert answer.logprob == pytest.approx(torch.log_softmax(scores[0], -1).max().item(), abs=1e-6)


def test_greedy_tells_scores_apart_that_round_to_one_logprob():
    """Two logits a hair apart, far below a third: their log-probabilities are equal in float32."""
    scores = torch.full((1, VOCAB), -1000.0)
    scores[0, 7], scores[0, 30] = 1000.0, torch.nextafter(torch.tensor(1000.0), torch.tensor(2000.0))
    assert one(scores).token == 30


def test_logprobs_of_bfloat16_logits_are_computed_in_float32():
    scores = logits().bfloat16()
    expected = torch.log_softmax(scores.float(), -1)[0].max().item()
    assert one(scores).logprob == pytest.approx(expected, abs=1e-6)


def test_the_bias_is_added_before_normalising():
    scores = logits()
    bias = {4: 100.0, 9: 99.0}
    shifted = scores[0].clone()
    shifted[4] += 100.0
    shifted[9] += 99.0
    expected = torch.log_softmax(shifted, -1)
    answer = one(scores, bias=bias, top_logprobs=3)
    assert answer.token == expected.argmax()
    for token, logprob in answer.top_logprobs.items():
        assert logprob == pytest.approx(expected[token].item(), abs=1e-4)


def test_a_bias_on_ids_beyond_the_head_changes_nothing():
    scores = logits()
    assert one(scores, bias={VOCAB: 100.0, 10**6: 100.0}) == one(scores)


@pytest.mark.parametrize("count", [0, 1, 5, VOCAB, VOCAB + 10])
def test_each_row_gets_as_many_alternatives_as_it_asked_for(count):
    scores = logits(2)
    answers = sample(scores.clone(), [sequence(top_logprobs=count), sequence(top_logprobs=2)], VOCAB)
    assert len(answers[0].top_logprobs) == min(max(count, 1), VOCAB)
    assert list(answers[1].top_logprobs) == scores[1].topk(2).indices.tolist()


def test_the_sampled_token_is_listed_besides_the_best_ones():
    scores = logits()
    answers = [one(scores, temperature=5.0, seed=seed, top_logprobs=2) for seed in range(40)]
    best = set(scores[0].topk(2).indices.tolist())
    assert {len(answer.top_logprobs) for answer in answers} == {2, 3}
    for answer in answers:
        assert set(answer.top_logprobs) == best | {answer.token}


def test_the_logprob_does_not_depend_on_temperature_and_truncation():
    scores = logits()
    plain = torch.log_softmax(scores[0], -1)
    for seed in range(20):
        answer = one(scores, temperature=3.0, top_p=0.9, top_k=20, seed=seed)
        assert answer.logprob == pytest.approx(plain[answer.token].item(), abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 1.2, "top_k": 8, "top_p": 0.7},
        {"temperature": 1.0, "top_p": 0.01},
    ],
)
def test_draws_follow_the_distribution_of_transformers_warpers(settings):
    scores = logits(seed=3)
    warped = TemperatureLogitsWarper(settings["temperature"])(None, scores.clone())
    if "top_k" in settings:
        warped = TopKLogitsWarper(settings["top_k"])(None, warped)
    if "top_p" in settings:
        warped = TopPLogitsWarper(settings["top_p"])(None, warped)
    draws = 4000
    expected = torch.softmax(warped.double(), -1)[0].numpy() * draws
    answers = sample(scores.expand(draws, -1), [sequence(seed=seed, **settings) for seed in range(draws)], VOCAB)
    counts = np.bincount([answer.token for answer in answers], minlength=VOCAB)
    assert not counts[expected == 0].any()
    # Pearson's test, at five standard deviations; ids that are expected rarely count as one.
    rare = expected < 5
    pairs = [*zip(counts[~rare], expected[~rare], strict=True), (counts[rare].sum(), expected[rare].sum())]
    statistic = sum((count - mean) ** 2 / mean for count, mean in pairs if mean)
    assert statistic <= len(pairs) + 5 * (2 * len(pairs)) ** 0.5


def test_a_nucleus_wider_than_the_first_candidates_is_found():
    """A flat distribution over more ids than are looked at first: all of the nucleus can be drawn."""
    size = 5000
    request = GenerateRequest((1,), 1, Sampling(temperature=1.0, top_p=0.99))
    drawn = set()
    for seed in range(300):
        row = Sequence.of(request, lambda events: None, rules=book(size).of(request))
        row.random = iter([seed / 300]).__next__
        drawn.add(sample(torch.zeros(1, size), [row], size)[0].token)
    assert len(drawn) == 300


def test_infinite_logits_are_taken_as_very_large_ones():
    scores = logits()
    scores[0, 7], scores[0, 9] = math.inf, -math.inf
    answer = one(scores, top_logprobs=VOCAB)
    assert (answer.token, answer.logprob) == (7, 0.0)
    assert answer.is_finite
    assert answer.top_logprobs[9] < -1e29


def test_one_scored_token_with_the_whole_vocabulary_has_no_other_ranked_so(monkeypatch):
    scores, asked, ranked = logits(6), [0, VOCAB, 3, 0, VOCAB, 1], []

    def counted(rows, k):
        ranked.append(len(rows) * k)
        return likeliest(rows, k)

    monkeypatch.setattr("cogsmith.engine.sampler._FEW_LISTED", 4, raising=False)
    monkeypatch.setattr("cogsmith.engine.sampler.likeliest", counted)
    wanted = [Wanted.with_score(ScoreRequest((1,), (7,), most, (7, 9))) for most in asked]
    answers = score(scores, [7] * 6, wanted, VOCAB)
    assert sum(ranked) < 3 * VOCAB
    for row, most, answer in zip(torch.log_softmax(scores, -1), asked, answers, strict=True):
        listed = row.topk(most).indices.tolist()
        assert answer.top_logprobs.keys() == {7, *listed}
        assert answer.logprob == pytest.approx(row[7].item())
        assert answer.logprobs == pytest.approx({7: row[7].item(), 9: row[9].item()})


def test_scored_tokens_that_the_model_excludes_are_not_finite():
    scores = logits(2)
    scores[:, 7] = -math.inf
    answers = score(scores, [7, 8], [Wanted.with_score(ScoreRequest((1,), (7, 8), 3, (7, 9)))] * 2, VOCAB)
    assert [answer.is_finite for answer in answers] == [False, True]
    assert answers[1].logprobs.keys() == {9}


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_top_k_of_one_is_greedy_among_equals_too(temperature):
    scores = torch.zeros(1, VOCAB)
    scores[0, [20, 30, 40]] = 1.0
    tokens = {one(scores, temperature=temperature, top_k=1, seed=seed).token for seed in range(20)}
    assert tokens == {scores.argmax().item()}


def test_the_same_seed_draws_the_same_and_another_differs():
    scores = logits()

    def draws(seed):
        row = sequence(temperature=2.0, seed=seed)
        return [sample(scores.clone(), [row], VOCAB)[0].token for _ in range(30)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_a_tiny_temperature_is_greedy_and_not_an_overflow():
    scores = logits()
    assert one(scores, temperature=1e-300).token == scores[0].argmax()


@pytest.mark.parametrize(
    "settings",
    [
        {"bias": {4: 1e300}},
        {"bias": {4: -1e300, 5: 1e300}},
        {"repetition_penalty": 1e300},
        {"repetition_penalty": 1e-300},
        {"generated": (7, 7), "presence_penalty": 1e300, "frequency_penalty": -1e308},
    ],
)
def test_the_largest_numbers_a_client_can_send_give_finite_logprobs(settings):
    answer = one(logits(), top_logprobs=VOCAB, **settings)
    assert answer.is_finite


def test_ids_beyond_the_tokenizer_are_never_drawn_or_listed_but_count_in_the_normalisation():
    scores = logits()
    scores[0, 45] = 50.0
    (answer,) = sample(scores.clone(), [sequence(top_logprobs=VOCAB)], 40)
    assert answer.token < 40
    assert max(answer.top_logprobs) < 40
    assert answer.logprob == pytest.approx(torch.log_softmax(scores[0], -1)[answer.token].item(), abs=1e-5)


def test_scoring_reads_one_value_per_row():
    scores = logits(3)
    expected = torch.log_softmax(scores, -1)
    answers = score(scores, [4, 0, 49], [Wanted.with_score(ScoreRequest((1,), (4, 0, 49)))] * 3, VOCAB)
    assert [answer.token for answer in answers] == [4, 0, 49]
    assert [answer.logprob for answer in answers] == pytest.approx(
        [expected[0, 4].item(), expected[1, 0].item(), expected[2, 49].item()], abs=1e-6
    )
