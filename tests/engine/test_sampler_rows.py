"""Rows of one step: none changes another, and none makes the host wait."""

import pytest
import torch

from cogsmith.engine.answer import Wanted
from cogsmith.engine.request import ScoreRequest
from cogsmith.engine.sampler import sample, score

from .sampling import VOCAB, Allows, constrained, logits, sequence


def test_rows_with_different_masks_share_a_step():
    scores = logits(3)
    rows = [sequence(bias={5: 100.0}), sequence(), sequence(bias={6: 100.0})]
    tokens = [answer.token for answer in sample(scores.clone(), rows, VOCAB)]
    assert tokens == [5, scores[1].argmax().item(), 6]


EVERY_WAY = [
    {},
    {"temperature": 1.0},
    {"temperature": 2.5, "top_p": 0.99},
    {"temperature": 0.7, "top_p": 0.5, "top_logprobs": 40},
    {"temperature": 1.0, "top_k": 12},
    {"temperature": 1.3, "top_k": 200, "top_p": 0.9},
    {"repetition_penalty": 1.3, "generated": (4, 4, 5)},
    {"presence_penalty": 0.4, "frequency_penalty": 0.2, "generated": (4, 4, 5), "temperature": 1.0},
    {"bias": {4: 3.0, 9: -1.0}, "temperature": 1.0},
    {"logprob_ids": tuple(range(0, 300, 7))},
    {"allow": b"\x55" * 40, "temperature": 1.0, "top_p": 0.8},
    {"top_logprobs": 300},
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [333, 5000])
def test_a_row_is_the_same_to_the_last_bit_whatever_shares_its_step(size, threads):
    scores = torch.randn(len(EVERY_WAY), size, generator=torch.Generator().manual_seed(1)) * 3

    def rows():
        made = [sequence(size=size, seed=i, **settings) for i, settings in enumerate(EVERY_WAY)]
        made[3].constraint = Allows(*range(1, size, 3), size=size)
        return made

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [sample(scores[i : i + 1], [row], size)[0] for i, row in enumerate(rows())]
        together = sample(scores, rows(), size)
        backwards = sample(scores.flip(0), rows()[::-1], size)[::-1]
    finally:
        torch.set_num_threads(before)
    assert together == alone
    assert backwards == alone


def test_nothing_is_waited_for_before_the_one_copy_to_the_host(monkeypatch):
    """Tensors without data refuse to say a number: so does whatever would wait for the device."""
    read = []

    def copied(parts):
        read.extend(parts)
        raise InterruptedError

    monkeypatch.setattr("cogsmith.engine.answer.to_host", copied)
    rows = [sequence(size=333, **settings) for settings in EVERY_WAY]
    rows[3].constraint = Allows(1, 2, 3)
    logits = torch.empty(len(rows), 333, dtype=torch.bfloat16, device="meta")
    with pytest.raises(InterruptedError):
        sample(logits, rows, 333)
    with pytest.raises(InterruptedError):
        score(logits, range(len(rows)), [Wanted.with_score(ScoreRequest((1,), (2,), 5, (7,)))] * len(rows), 333)
    assert {part.device.type for part in read} == {"meta"}


@pytest.mark.parametrize("size", [VOCAB, VOCAB + 30])
def test_a_constraint_excludes_all_other_ids(size):
    scores = logits()
    answer = sample(scores, [constrained(Allows(3, 8, 49, size=size), top_logprobs=VOCAB)], VOCAB)[0]
    expected = torch.log_softmax(scores[0, [3, 8, 49]], -1)
    assert answer.top_logprobs == pytest.approx(dict(zip((3, 8, 49), expected.tolist(), strict=True)), abs=1e-5)


def test_constraint_mask_and_bias_together():
    scores = logits(3)
    settings = {"allow": bytes([0b00011000]), "bias": {4: 50.0, 8: 90.0}, "top_logprobs": 9}
    rows = [sequence(), constrained(Allows(2, 3, 4, 8), **settings), constrained(Allows(7))]
    answers = sample(scores, rows, VOCAB)
    assert answers[0].token == scores[0].argmax()
    assert (answers[1].token, answers[1].top_logprobs.keys()) == (4, {3, 4})
    assert (answers[2].token, answers[2].logprob) == (7, 0.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_nothing_is_left_to_says_so_and_harms_no_other(temperature):
    scores = logits(3)
    rows = [
        sequence(),
        constrained(Allows(7), allow=bytes([0b00011000]), temperature=temperature, top_p=0.9, logprob_ids=(3,)),
        sequence(temperature=1.0, seed=4),
    ]
    answers = sample(scores, rows, VOCAB)
    assert [answer.is_possible for answer in answers] == [True, False, True]
    assert [answers[0]] == sample(scores[:1], [sequence()], VOCAB)
    assert [answers[2]] == sample(scores[2:], [sequence(temperature=1.0, seed=4)], VOCAB)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), -float("nan")])
@pytest.mark.parametrize("places", [slice(None), slice(7, 8)])
def test_undefined_logits_spoil_their_own_row_alone(places, bad, temperature):
    scores = logits(2)
    scores[0, places] = bad
    rows = [sequence(temperature=temperature, top_p=top_p) for top_p in (0.9, 0.9)]
    broken, sound = sample(scores, rows, VOCAB)
    assert broken.is_possible
    assert not broken.is_finite
    assert sound.is_finite
