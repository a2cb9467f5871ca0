"""A request that goes through bytes and comes back as it was. Needs no vLLM."""

import random

import numpy as np
import pytest

from cogsmith.engine.request import GenerateRequest, Sampling, ScoreRequest
from cogsmith.engine.vllm import wire

HEAD = 1000


def sent(request, *progress):
    return wire.decode(wire.encode(request, HEAD, *progress))


def test_a_generate_keeps_all_but_its_prompt():
    sampling = Sampling(0.5, 0.9, 40, 1.1, 0.2, 0.3, 2**63 - 1)
    request = GenerateRequest((), 9, sampling, {}, 7, b"\x05\xff", 3, (1, 2))
    assert sent(GenerateRequest((4, 5), 9, sampling, {}, 7, b"\x05\xff", 3, (1, 2)))[0] == request


def test_a_score_keeps_all_but_its_prompt():
    assert sent(ScoreRequest((1, 2), (3, 4), 5, (6,)))[0] == ScoreRequest((), (3, 4), 5, (6,))


def test_progress_comes_along():
    _, progress = sent(GenerateRequest((1,)), wire.Progress(7, 3))
    assert (progress.num_generated, progress.num_drawn) == (7, 3)


def some_bias(kind):
    draw = random.Random(0)
    ids = draw.sample(range(HEAD), 400)
    return {
        "mask": dict.fromkeys(ids, -100.0),
        "values": {id_: draw.uniform(-100, 100) for id_ in ids},
        "zeros": {id_: draw.choice([0.0, -0.0, 1.5]) for id_ in ids},
        "only zeros": {5: 0.0},
        "out of range": {3: 2.5, HEAD: 1.0, 10**9: 1.0},
        "huge": {3: 1e300, 4: -1e300, 5: 1e-300},
    }[kind]


@pytest.mark.parametrize("kind", ["mask", "values", "zeros", "only zeros", "out of range", "huge"])
def test_a_bias_arrives_in_float32(kind):
    bias = some_bias(kind)
    with np.errstate(over="ignore"):
        expected = {id_: float(np.float32(value)) for id_, value in bias.items() if id_ < HEAD}
    arrived = sent(GenerateRequest((1,), bias=bias))[0].bias
    for id_ in range(HEAD):
        value = min(max(expected.get(id_, 0.0), float(np.float32(-1e30))), float(np.float32(1e30)))
        assert arrived.get(id_, 0.0) == value
    assert list(arrived.keys()) == sorted(arrived.keys())
    assert list(arrived.values()) == [arrived[id_] for id_ in arrived]


def test_a_mask_of_half_the_vocabulary_takes_a_bit_for_each_id():
    head = 150_000
    bias = dict.fromkeys(range(0, head, 2), -100.0)
    assert len(wire.encode(GenerateRequest((1,), bias=bias), head)) < head / 8 + 500
