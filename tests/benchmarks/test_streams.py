"""The driver of the comparison, over engines that do as they are told."""

import pytest
from engines import streams
from engines.tasks import Generate, Score, Stream, from_json, to_json


class Counting:
    """An engine whose answer to a prompt of n ids is n, n + 1, …; it remembers what it was asked."""

    def __init__(self, missing=0):
        self.asked = []
        self._missing = missing

    def start(self, calls):
        for call in calls:
            self.asked.append((list(call.prompt), call.bias, call.top_logprobs))
            ids = [len(call.prompt) + step for step in range(call.max_tokens - self._missing)]
            call.emit(ids[:1], False)
            call.emit(ids[1:], True)

    def score(self, prompt, options):
        return [[-1.0] * (len(option) - self._missing) for option in options]


class Failing(Counting):
    def start(self, calls):
        for call in calls:
            call.fail("no memory")


def test_a_growing_stream_asks_for_its_prompt_its_answer_and_more():
    engine = Counting()
    task = Generate([Stream([7, 8], more=[[9], [10]], bias={"3": 100.0}), Stream([5])], 2, 4)
    measured = streams.run(engine, task)
    assert sorted(engine.asked) == [
        ([5], {}, 4),
        ([7, 8], {3: 100.0}, 4),
        ([7, 8, 2, 3, 9], {3: 100.0}, 4),
        ([7, 8, 2, 3, 9, 5, 6, 10], {3: 100.0}, 4),
    ]
    assert measured.made == [[2, 3, 5, 6, 8, 9], [1, 2]]
    assert (len(measured.first), len(measured.later), measured.tokens) == (2, 2, 8)


def test_an_engine_that_makes_fewer_tokens_is_no_faster_one():
    with pytest.raises(RuntimeError, match="made 2 tokens of 3"):
        streams.run(Counting(missing=1), Generate([Stream([1])], 3))
    with pytest.raises(RuntimeError, match="no log-probability"):
        streams.run(Counting(missing=1), Score([1], [[2, 3]]))


def test_a_failure_is_told_in_its_own_words():
    with pytest.raises(RuntimeError, match="no memory"):
        streams.run(Failing(), Generate([Stream([1])], 3))


@pytest.mark.parametrize("task", [Score([1], [[2], [3, 4]]), Generate([Stream([1], [[2]], {"3": -100.0})], 5, 6)])
def test_tasks_travel(task):
    assert from_json(to_json(task)) == task
