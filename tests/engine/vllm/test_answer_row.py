"""Answers through a row of logits, read as vLLM reads it: the largest value is the token, the k largest come back."""

import math

import pytest
import torch

from cogsmith.engine.answer import Answer
from cogsmith.engine.request import GenerateRequest
from cogsmith.engine.vllm import answer_row

HEAD = 20


def through_vllm(request, answer):
    """Write one answer into the second of three rows, sample greedily, take the largest values; read it again."""
    logits = torch.randn(3, HEAD)
    untouched = logits[[0, 2]].clone()
    answer_row.write(logits, [1], [answer])
    assert torch.equal(logits[[0, 2]], untouched)
    token = int(logits[1].argmax())
    values, ids = logits[1].topk(answer_row.width(request, HEAD))
    entries = [(token, float(logits[1, token])), *zip(ids.tolist(), values.tolist(), strict=True)]
    return answer_row.read(request, token, entries)


def float32(value):
    return float(torch.tensor(value))


@pytest.mark.parametrize(
    ("token", "logprob", "top", "named", "k"),
    [
        (3, -0.5, {3: -0.5, 4: -1.25, 5: -2.0}, None, 3),
        (9, -30.0, {3: -0.5, 4: -1.25, 9: -30.0}, None, 2),
        (3, -0.5, {3: -0.5}, None, 0),
        (3, 0.0, {3: 0.0}, None, 1),
        (3, 0.0, {3: 0.0, 1: -17.0}, {1: -17.0}, 2),
        (9, -30.0, {3: -0.5, 9: -30.0}, {7: -99.0, 9: -30.0, 3: -0.5}, 1),
        (9, -1e30, {3: 0.0, 9: -1e30}, {4: -2e30}, 1),
        (2, -1e-45, {2: -1e-45, 0: -103.0}, None, 2),
    ],
)
def test_every_number_arrives_as_it_was(token, logprob, top, named, k):
    ids = tuple(named or ())
    request = GenerateRequest((1,), top_logprobs=k, logprob_ids=ids)
    answer = through_vllm(request, Answer(token, logprob, top, named))
    assert (answer.token, answer.logprob) == (token, float32(logprob))
    assert answer.top_logprobs == {id_: float32(value) for id_, value in top.items()}
    assert answer.logprobs == (None if named is None else {id_: float32(value) for id_, value in named.items()})
    assert answer.is_finite
    assert answer.is_possible


def test_an_id_asked_for_that_a_mask_excludes_is_not_listed():
    request = GenerateRequest((1,), top_logprobs=2, logprob_ids=(4, 5))
    answer = through_vllm(request, Answer(5, -0.1, {5: -0.1}, {5: -0.1}))
    assert answer == Answer(5, float32(-0.1), {5: float32(-0.1)}, {5: float32(-0.1)})


def test_the_whole_vocabulary_may_be_listed():
    values = torch.randn(HEAD).log_softmax(-1).tolist()
    request = GenerateRequest((1,), top_logprobs=HEAD, logprob_ids=tuple(range(HEAD)))
    listed = dict(enumerate(values))
    assert through_vllm(request, Answer(7, values[7], listed, listed)).top_logprobs == listed


def test_where_the_model_gave_no_number_or_nothing_is_left_the_answer_says_so():
    request = GenerateRequest((1,))
    broken = through_vllm(request, Answer(3, math.nan, {3: math.nan}))
    assert (broken.is_possible, broken.is_finite) == (True, False)
    assert not through_vllm(request, Answer(3, math.nan, {}, is_possible=False)).is_possible


def test_a_sampler_that_failed_is_an_error():
    with pytest.raises(RuntimeError, match="sampling failed"):
        through_vllm(GenerateRequest((1,)), answer_row.FAILED)
