"""Which texts share a forward pass."""

import random

import pytest

from cogsmith.engine.length_batches import next_batch


def drain(lengths, **limits):
    """Take batch after batch; return them as lists of lengths."""
    waiting, batches = list(lengths), []
    while waiting:
        places = next_batch(waiting, **limits)
        assert places[0] == 0
        assert len(set(places)) == len(places)
        batches.append([waiting[place] for place in places])
        waiting = [length for place, length in enumerate(waiting) if place not in places]
    return batches


@pytest.mark.parametrize("equal", [False, True])
def test_nothing_is_lost_and_no_batch_is_too_large(equal):
    draw = random.Random(0)
    lengths = [draw.choice([1, 3, 8, 20, 60, 200, 500]) + draw.randrange(20) for _ in range(300)]
    batches = drain(lengths, max_rows=16, max_tokens=1024, equal=equal)
    assert sorted(length for batch in batches for length in batch) == sorted(lengths)
    assert all(len(batch) <= 16 and (len(batch) == 1 or max(batch) * len(batch) <= 1024) for batch in batches)
    if equal:
        assert all(min(batch) == max(batch) for batch in batches)


def test_little_of_a_batch_is_padding():
    draw = random.Random(1)
    lengths = [int(draw.expovariate(1 / 80)) + 8 for _ in range(500)]
    batches = drain(lengths, max_rows=32, max_tokens=4096)
    assert sum(max(batch) * len(batch) for batch in batches) < 1.15 * sum(lengths)
    assert len(batches) < 60


def test_a_text_that_is_too_long_for_any_batch_runs_alone():
    assert next_batch([5000, 10, 5000], max_rows=8, max_tokens=1000) == [0]


def test_the_nearest_in_length_come_first():
    assert next_batch([10, 11, 10, 12, 10], max_rows=3, max_tokens=1000) == [0, 2, 4]
