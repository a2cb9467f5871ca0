"""Calls to a server that speaks LMTP 1.0 only: what it is asked instead, and what it cannot be asked."""

from __future__ import annotations

import asyncio

import pytest

from cogsmith.client import connect
from cogsmith.errors import UnsupportedByServer

from .arithmetic import LETTERS, continuation, letters


def call(work, **settings):
    async def main():
        async with connect("replicate:o/m", **settings) as client:
            return await asyncio.wait_for(work(client), 30)

    return asyncio.run(main())


def test_branches_become_operations(plain_service):
    result = call(lambda client: client.generate([1], max_tokens=4, n=3).result())
    assert [branch.ids for branch in result.branches] == [continuation([1], 4)] * 3
    assert result.timing is None
    (batch,) = plain_service.work
    assert [verb for verb, _ in batch] == ["GENERATE"] * 3
    assert not any({"lmtp", "n", "cancel_key"} & payload.keys() for _, payload in batch)


def test_options_become_operations(plain_service):
    scored = call(lambda client: client.score([1], [[2, 3], [4]]))
    assert [one.ids for one in scored] == [(2, 3), (4,)]
    (batch,) = plain_service.work
    assert [(verb, payload["scored"]) for verb, payload in batch] == [("SCORE", [2, 3]), ("SCORE", [4])]


def test_a_mask_becomes_a_bias(plain_service):
    call(lambda client: client.generate([1], max_tokens=1, allow=[5, 6], logit_bias={6: 1.5, 7: 2.0}).result())
    (((_, payload),),) = plain_service.work
    assert payload["logit_bias"] == {"5": 100.0, "6": 101.5, "7": 2.0}


def test_a_wide_mask_becomes_a_bias_on_the_rest(plain_service):
    call(lambda client: client.generate([1], max_tokens=1, allow=range(2, 97), logit_bias={1: 1.5}).result())
    (((_, payload),),) = plain_service.work
    assert payload["logit_bias"] == {"0": -100.0, "1": -98.5}


def test_the_client_stops_at_ids(plain_service):
    tokens = continuation([1], 30)
    result = call(lambda client: client.generate([1], max_tokens=30, stop=[tokens[4:6]]).result())
    assert result.ids == tokens[:6]
    assert result.finish_reason == "stop_sequence"
    assert result.branches[0].stop == tokens[4:6]
    (((_, payload),),) = plain_service.work
    assert "stop" not in payload


def test_the_client_stops_at_text(plain_service):
    tokens = continuation([1], 30)
    text = letters(tokens[4:6])
    result = call(lambda client: client.generate([1], max_tokens=30, stop=text).result(), tokenizer=LETTERS)
    assert result.ids == tokens[:6]
    assert result.branches[0].stop == text


def test_stopping_in_the_client_cancels_what_goes_on(plain_service):
    plain_service.faults.holds_after = 10
    tokens = continuation([1], 30)
    result = call(lambda client: client.generate([1], max_tokens=30, stop=[[tokens[7]]]).result())
    assert result.ids == tokens[: tokens.index(tokens[7]) + 1]
    assert plain_service.cancelled == ["p1"]


def test_a_stopped_stream_goes_on_after_a_break(plain_service):
    plain_service.faults.fails_after = [4]
    tokens = continuation([1], 30)
    result = call(lambda client: client.generate([1], max_tokens=30, stop=[tokens[3:6]]).result())
    assert result.ids == tokens[:6]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"min_tokens": 2}, "min_tokens"),
        ({"constraint": {"regex": "a"}}, "constraint"),
        ({"logprob_ids": [1], "seed": 0, "n": 2}, "seed, logprob_ids"),
        ({"eos_ids": []}, "eos_ids"),
    ],
)
def test_what_a_plain_server_cannot_do_is_named(plain_service, options, named):
    with pytest.raises(UnsupportedByServer, match=f"LMTP 1.0 and has no {named}"):
        call(lambda client: client.generate([1], **options).result())
    assert plain_service.work == []


def test_text_needs_a_tokenizer(plain_service):
    with pytest.raises(UnsupportedByServer, match="tokenizer") as caught:
        call(lambda client: client.generate("a", max_tokens=1).result())
    assert "give connect a tokenizer" in caught.value.fix


def test_a_server_with_few_features_is_not_asked_for_others(service):
    service.info = {**service.info, "features": ["n"]}
    assert call(lambda client: client.generate([1], max_tokens=2, n=2).result()).ids == continuation([1], 2)
    with pytest.raises(UnsupportedByServer, match=r"LMTP 1\.1 and has no allow, seed"):
        call(lambda client: client.generate([1], allow=[1], seed=2).result())
    (((_, payload),),) = service.work
    assert "cancel_key" not in payload
