"""Penalties against transformers' and plain arithmetic."""

import pytest
import torch
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from cogsmith.engine.sampler import sample

from .sampling import VOCAB, logits, one, sequence


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
def test_repetition_penalty_equals_transformers(penalty):
    scores = logits()
    answer = one(scores, prompt=(1, 2, 3, 2), generated=(7, 8), repetition_penalty=penalty, top_logprobs=VOCAB)
    ids = torch.tensor([[1, 2, 3, 2, 7, 8]])
    expected = torch.log_softmax(RepetitionPenaltyLogitsProcessor(penalty)(ids, scores.clone()), -1)[0]
    for token, logprob in answer.top_logprobs.items():
        assert logprob == pytest.approx(expected[token].item(), abs=1e-5)


def test_presence_and_frequency_penalties_count_the_continuation_only():
    scores = logits()
    answer = one(
        scores,
        prompt=(1, 2, 3),
        generated=(7, 7, 8),
        presence_penalty=0.5,
        frequency_penalty=0.25,
        top_logprobs=VOCAB,
    )
    expected = scores[0].clone()
    expected[7] -= 0.5 + 2 * 0.25
    expected[8] -= 0.5 + 0.25
    expected = torch.log_softmax(expected, -1)
    for token, logprob in answer.top_logprobs.items():
        assert logprob == pytest.approx(expected[token].item(), abs=1e-5)


def test_penalties_of_several_rows_and_of_a_long_text_are_each_their_own():
    scores = logits(4)
    texts = [(1, 2), (5,) * 300 + (6,), (7,), (1, 9)]
    rows = [
        sequence(texts[0], repetition_penalty=1.5, top_logprobs=VOCAB),
        sequence(texts[1], repetition_penalty=0.7, generated=(6, 8, 8), top_logprobs=VOCAB),
        sequence(texts[2], top_logprobs=VOCAB),
        sequence(texts[3], presence_penalty=1.0, generated=(9, 3), repetition_penalty=1.5, top_logprobs=VOCAB),
    ]
    for place, (row, answer) in enumerate(zip(rows, sample(scores.clone(), rows, VOCAB), strict=True)):
        sampling = row.request.sampling
        processed = scores[place : place + 1].clone()
        if sampling.repetition_penalty != 1:
            processed = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(
                torch.tensor([row.tokens]), processed
            )
        for token in set(row.generated):
            processed[0, token] -= sampling.presence_penalty
        expected = torch.log_softmax(processed, -1)[0]
        assert answer.top_logprobs == pytest.approx(dict(enumerate(expected.tolist())), abs=1e-5)
