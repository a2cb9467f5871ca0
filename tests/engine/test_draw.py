"""Draws against inverted distributions of float64, made with numpy."""

import numpy as np
import pytest
import torch

from cogsmith.engine.draw import Draw, choose
from cogsmith.engine.ranking import BLOCK, likeliest, padded
from cogsmith.engine.request import Sampling

ALMOST_ONE = np.nextafter(1.0, 0.0)


def drawn(row, sampling, uniforms, *, num_ranked=None):
    """Draw from one row of scores at each of the numbers, ranking more where a draw is not settled."""
    draws = [Draw.of(sampling, len(row), uniform) for uniform in uniforms]
    scores = padded(torch.as_tensor(row, dtype=torch.float32).expand(len(draws), -1))
    num_ranked = num_ranked or draws[0].num_ranked(len(row))
    tokens, settled = choose(scores, likeliest(scores, num_ranked), draws, len(row))
    result = tokens[:, 0].numpy()
    if not settled.all():
        late = ~settled[:, 0].numpy()
        wider = min(8 * num_ranked, len(row))
        assert wider > num_ranked
        result[late] = drawn(row, sampling, np.array(uniforms)[late], num_ranked=wider)
    return result


def cumulative_truth(row, sampling):
    """The ids that may be drawn, in the order of the draw, and their cumulative probabilities, in float64."""
    row = np.asarray(row, np.float32).astype(np.float64)
    order = np.arange(len(row))
    if sampling.top_k or sampling.top_p < 1:
        order = np.lexsort((order, -row))
    weights = np.exp((row[order] - row.max()) / sampling.temperature)
    if sampling.top_k:
        weights = weights[: sampling.top_k]
    weights /= weights.sum()
    if sampling.top_p < 1:
        weights = weights[: np.searchsorted(weights.cumsum(), sampling.top_p) + 1]
    return order[: len(weights)], weights.cumsum() / weights.sum()


@pytest.mark.parametrize("size", [40, 3000])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0),
        Sampling(0.3),
        Sampling(1.0, top_k=1),
        Sampling(1.7, top_k=30),
        Sampling(1.0, top_p=0.9),
        Sampling(0.5, top_p=0.3),
        Sampling(4.0, top_p=0.97),
        Sampling(1.3, top_k=25, top_p=0.6),
        Sampling(3.0, top_k=10**6, top_p=0.5),
    ],
    ids=str,
)
def test_each_number_draws_the_token_that_float64_says(sampling, size):
    row = np.random.default_rng(size).normal(size=size).astype(np.float32) * 3
    truth = Sampling(sampling.temperature, sampling.top_p, sampling.top_k if sampling.top_k < size else 0)
    order, cumulative = cumulative_truth(row, truth)
    uniforms = np.concatenate([np.linspace(0, 1, 997, endpoint=False), [ALMOST_ONE]])
    # A number so close to a border belongs to either side, for float32 probabilities.
    clear = np.abs(uniforms[:, None] - cumulative).min(axis=1) > 1e-6
    expected = order[np.searchsorted(cumulative, uniforms, side="right").clip(max=len(order) - 1)]
    assert clear.mean() > 0.98
    assert (drawn(row, sampling, uniforms) == expected)[clear].all()


def test_the_rare_ids_of_a_large_vocabulary_are_each_drawn_at_their_own_number():
    """A thousandth of the mass on 150,000 ids: sums of float32 would have steps of nine of them."""
    size, weight = 150_001, 1.5e8
    row = np.zeros(size, np.float32)
    row[0] = np.log(weight)
    ids = np.arange(1, size, 3001)
    tokens = drawn(row, Sampling(1.0), (weight + ids) / (weight + size - 1))
    # The first id's probability is a float32, whose rounding moves all the others by the same amount.
    assert np.ptp(tokens - ids) <= 1
    assert abs(tokens - ids).max() < 10


@pytest.mark.parametrize("settings", [{}, {"top_k": 7}, {"top_p": 0.9}, {"top_k": 50, "top_p": 0.999}])
@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1.0, 1e300])
def test_what_has_no_probability_is_never_drawn(settings, temperature):
    row = np.full(700, -np.inf)
    row[[3, 130, 131, 650]] = [1e30, 1e30, -1e30, 5.0]
    tokens = drawn(row, Sampling(temperature, **settings), [0.0, 1e-300, 0.5, ALMOST_ONE])
    assert set(tokens.tolist()) <= {3, 130, 131, 650}
    if temperature < 1e300:
        assert tokens.tolist()[0] == 3
        assert set(tokens.tolist()) <= {3, 130}


@pytest.mark.parametrize("spread", [1, 8, 16])
def test_rounding_at_the_border_of_a_block_finds_nothing_that_is_excluded(spread):
    """At the very numbers where one block ends and the next begins, whose outer ids have probability 0."""
    row = np.random.default_rng(7).normal(size=(300, 1)) * spread + np.random.default_rng(8).normal(size=(300, BLOCK))
    row = row.astype(np.float32)
    row[:, : BLOCK // 4] = row[:, -BLOCK // 4 :] = -np.inf
    probabilities = torch.softmax(torch.from_numpy(row).flatten(), -1).view(300, BLOCK)
    borders = probabilities.sum(-1).double().cumsum(-1).numpy()
    uniforms = borders[:-1] / borders[-1]
    around = np.concatenate([uniforms, np.nextafter(uniforms, 0), np.nextafter(uniforms, 1)]).clip(0, ALMOST_ONE)
    assert np.isfinite(row.ravel()[drawn(row.ravel(), Sampling(1.0), around)]).all()


def test_of_equally_likely_ids_top_k_keeps_the_lowest():
    row = np.zeros(1000)
    assert set(drawn(row, Sampling(1.0, top_k=3), np.linspace(0, ALMOST_ONE, 50))) == {0, 1, 2}
    row[500] = row[600] = 1.0
    assert set(drawn(row, Sampling(1.0, top_k=1), np.linspace(0, ALMOST_ONE, 50))) == {500}


@pytest.mark.parametrize("num_ranked", [128, 129, 500, 3000])
def test_a_draw_does_not_depend_on_how_many_ids_are_ranked(num_ranked):
    row = np.random.default_rng(5).normal(size=3000).round(1)
    uniforms = np.linspace(0, ALMOST_ONE, 301)
    for sampling in (Sampling(1.0, top_p=0.8), Sampling(1.0, top_k=90, top_p=0.9)):
        assert (drawn(row, sampling, uniforms, num_ranked=num_ranked) == drawn(row, sampling, uniforms)).all()


def test_a_greedy_row_among_others_takes_the_likeliest():
    scores = padded(torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]))
    draws = [Draw.of(Sampling(), 3, 0.9), Draw.of(Sampling(9.0), 3, ALMOST_ONE)]
    tokens, settled = choose(scores, likeliest(scores, 1), draws, 3)
    assert tokens.tolist() == [[1], [2]]
    assert settled.all()
