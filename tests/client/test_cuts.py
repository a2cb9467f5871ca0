"""Cut connections and dead workers: every token comes once, or the caller is told."""

from __future__ import annotations

import asyncio

import pytest

from cogsmith.client import connect
from cogsmith.errors import StreamBroken

from .arithmetic import continuation, logprob


def call(work, **settings):
    async def main():
        async with connect("replicate:o/m", **settings) as client:
            return await asyncio.wait_for(work(client), 30)

    return asyncio.run(main())


def three_streams(**options):
    """Three greedy continuations of 12 tokens at once, one in two branches, and a scoring; all of them as they came."""

    async def work(client):
        streams = [client.generate([i], max_tokens=12, **options) for i in (1, 2)]
        streams.append(client.generate([3], max_tokens=12, n=2, **options))
        scored, *results = await asyncio.gather(
            client.score([5, 6], [[7, 8, 9], [10]]), *(stream.result() for stream in streams)
        )
        return [branch for result in results for branch in result.branches], scored

    return work


def check(answer):
    branches, scored = answer
    assert [branch.ids for branch in branches] == [continuation([i], 12) for i in (1, 2, 3, 3)]
    for branch, first in zip(branches, (1, 2, 3, 3), strict=True):
        assert [token.logprob for token in branch.tokens] == [
            logprob([first, *branch.ids[:step]], token) for step, token in enumerate(branch.ids)
        ]
        assert branch.finish_reason == "length"
    assert [one.ids for one in scored] == [(7, 8, 9), (10,)]
    assert [token.logprob for token in scored[0].tokens] == [
        logprob([5, 6], 7),
        logprob([5, 6, 7], 8),
        logprob([5, 6, 7, 8], 9),
    ]


@pytest.mark.parametrize("how", ["resumes", "replays", "has no ids", "is gone", "tells no output"])
@pytest.mark.parametrize("chunk_size", [None, 33, 1000])
@pytest.mark.parametrize("cuts", [[0, 0, 5], [1, 3, 2], [20], [7, 40, 6]])
def test_a_cut_stream_goes_on_where_it_was(service, how, chunk_size, cuts):
    faults = service.faults
    faults.cuts, faults.chunk_size = list(cuts), chunk_size
    faults.replays = how == "replays"
    faults.no_ids = how == "has no ids"
    faults.replays |= faults.no_ids
    faults.gone_after_cut = how == "is gone"
    faults.hides_output = how == "tells no output"
    check(call(three_streams()))
    assert len(service.work) == 1
    assert service.cancelled == []


@pytest.mark.parametrize("fails_after", [[1], [5], [23], [6, 7], [30, 1]])
def test_a_dead_prediction_is_continued_in_another(service, fails_after):
    service.faults.fails_after = list(fails_after)
    check(call(three_streams()))
    assert len(service.work) == 1 + len(fails_after)


def test_only_what_is_missing_is_asked_again(service):
    service.faults.fails_after = [10]
    call(lambda client: client.generate([1], max_tokens=30).result())
    (_, first), (_, second) = (batch[0] for batch in service.work)
    assert (first["prompt"], first["max_tokens"]) == ([1], 30)
    assert second["prompt"] == [1, *continuation([1], 10)]
    assert second["max_tokens"] == 20


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"stop": ["x"]},
        {"temperature": 1.0, "seed": 3},
    ],
)
def test_what_cannot_go_on_unchanged_is_told(service, options):
    service.faults.fails_after = [4]

    async def work(client):
        stream = client.generate([1], max_tokens=9, **options)
        came = tuple([(await anext(stream)).token for _ in range(4)])
        with pytest.raises(StreamBroken, match="4 tokens had come") as caught:
            await anext(stream)
        return came, caught.value.num_tokens

    assert call(work) == (continuation([1], 4), 4)
    assert len(service.work) == 1


def test_what_has_not_begun_may_start_again(service):
    """Of a prediction that has given output, to others."""
    service.faults.fails_after = [1]

    async def work(client):
        first, second = (client.generate([i], max_tokens=5, temperature=1.0, seed=9) for i in (1, 2))
        with pytest.raises(StreamBroken):
            await first.result()
        return (await second.result()).ids

    assert call(work) == continuation([2], 5)


def test_recoveries_come_to_an_end(service):
    service.faults.fails_after = [2, 2, 2, 2, 2]
    with pytest.raises(StreamBroken) as caught:
        call(lambda client: client.generate([1], max_tokens=30).result())
    assert caught.value.num_tokens == 6
    assert len(service.work) == 3


def test_recoveries_can_be_forbidden(service):
    service.faults.fails_after = [2]
    with pytest.raises(StreamBroken, match="the worker died"):
        call(lambda client: client.generate([1], max_tokens=30).result(), max_recoveries=0)
    assert len(service.work) == 1
