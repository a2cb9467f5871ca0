"""The ranking against numpy's stable sorts."""

import numpy as np
import pytest
import torch

from cogsmith.engine.ranking import BLOCK, likeliest, padded


def ranked_by_numpy(row, k):
    """Ids by score, highest first, and lower ids first among equals."""
    return np.lexsort((np.arange(len(row)), -row))[:k]


@pytest.mark.parametrize("head", [7, BLOCK, 1000, 5000])
@pytest.mark.parametrize("k", [1, 3, 20, 77, 1000, 5000])
def test_equal_scores_are_ranked_by_id(head, k):
    """Rounded to quarters, a few values are shared by all ids, as bfloat16 makes it happen."""
    k = min(k, head)
    scores = (torch.randn(5, head, generator=torch.Generator().manual_seed(k)) * 4).round() / 4
    ranked = likeliest(padded(scores), k)
    for row, ids, values in zip(scores.numpy(), ranked.ids.numpy(), ranked.scores.numpy(), strict=True):
        assert ids.tolist() == ranked_by_numpy(row, k).tolist()
        assert values.tolist() == row[ids].tolist()


def test_both_zeros_are_equal():
    scores = torch.full((1, 300), -1.0)
    scores[0, [5, 100, 250]] = torch.tensor([-0.0, 0.0, -0.0])
    assert likeliest(padded(scores), 3).ids.tolist() == [[5, 100, 250]]


@pytest.mark.parametrize("k", [2, 300])
def test_infinities_and_the_largest_numbers_are_ranked(k):
    scores = torch.zeros(1, 300)
    scores[0, [9, 8, 7, 6]] = torch.tensor([torch.inf, 3.4e38, -torch.inf, -3.4e38])
    ids = likeliest(padded(scores), k).ids[0].tolist()
    assert ids[:2] == [9, 8]
    assert k == 2 or ids[-2:] == [6, 7]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_undefined_numbers_of_either_sign_rank_highest(sign):
    scores = torch.zeros(1, 300)
    scores[0, 200] = torch.tensor(float("nan")).copysign(torch.tensor(sign))
    ranked = likeliest(padded(scores), 2)
    assert ranked.ids.tolist() == [[200, 0]]
    assert ranked.scores[0, 0].isnan()


def test_beyond_the_head_there_is_nothing():
    scores = padded(torch.zeros(2, BLOCK + 1))
    assert scores.shape == (2, 2 * BLOCK)
    assert scores[:, BLOCK + 1 :].eq(-torch.inf).all()
    assert likeliest(scores, BLOCK + 1).ids.max() == BLOCK
