"""Arguments that have no meaning are named before anything is sent."""

from __future__ import annotations

import asyncio
import math

import numpy
import pytest

from cogsmith.client import connect
from cogsmith.errors import RequestRejected

from .arithmetic import continuation


def call(work):
    async def main():
        async with connect("replicate:o/m") as client:
            return await asyncio.wait_for(work(client), 30)

    return asyncio.run(main())


async def generating(client, options):
    return await client.generate([1, 2], **options).result()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1, "top_p": 2}, "temperature is -1.*top_p is 2"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"max_token": 5}, "no option max_token"),
        ({"stream_id": 1}, "no option stream_id"),
        ({"n": 1000}, "n is 1000"),
        ({"stop": [""]}, "stop"),
        ({"stop": [[1.5]]}, "stop holds what is no token id"),
        ({"allow": []}, "allows no id"),
        ({"allow": [-1]}, "-1"),
        ({"constraint": {"regexp": "a"}}, "unknown field `regexp`"),
        ({"constraint": {"regex": "a", "choice": ["a"]}}, "constraint has regex and choice"),
        ({"constraint": "[0-9]"}, "constraint is"),
        ({"constraint": {"choice": "ab"}}, "constraint is"),
        ({"constraint": {"json_schema": "{"}}, "json_schema is no JSON"),
        ({"constraint": None}, "constraint"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {1: math.inf}}, r"logit_bias\[1\] is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"deadline": 0}, "deadline is 0"),
        ({"deadline": math.inf}, "deadline is inf"),
        ({"deadline": math.nan}, "deadline is nan"),
        ({"deadline": "5"}, "deadline is '5'"),
        ({"deadline_ms": 5}, "no option deadline_ms"),
        ({"cancel_key": "mine"}, "no option cancel_key"),
        ({"stop": None}, "stop is None"),
        ({"stop": "\ud800"}, "payload|stop"),
        ({"allow": None}, "allow"),
        ({"logit_bias": None}, "logit_bias"),
    ],
)
def test_options(service, options, named):
    with pytest.raises(RequestRejected, match=named):
        call(lambda client: generating(client, options))
    assert service.batches == []


@pytest.mark.parametrize("prompt", [[1.0], ["a"], [None], [-1]])
def test_prompts(service, prompt):
    with pytest.raises(RequestRejected, match="prompt"):
        call(lambda client: client.generate(prompt).result())


def test_half_a_character_is_no_prompt(service):
    with pytest.raises(RequestRejected, match="surrogates"):
        call(lambda client: client.generate("\ud800").result())


@pytest.mark.parametrize("options", ["abc", b"abc", 5, None])
def test_one_option_is_no_list_of_options(service, options):
    with pytest.raises(RequestRejected, match="options is"):
        call(lambda client: client.score([1], options))


def test_options_may_be_made_on_the_way(service):
    scored = call(lambda client: client.score([1], ([option] for option in (2, 3))))
    assert [one.ids for one in scored] == [(2,), (3,)]


def test_probabilities_are_made_in_two_ways_only(service):
    with pytest.raises(RequestRejected, match="normalise is 'max'"):
        call(lambda client: client.distribution([1], [[2]], normalise="max"))


@pytest.mark.parametrize("options", [[], [[]]])
def test_nothing_to_score(service, options):
    with pytest.raises(RequestRejected, match="options"):
        call(lambda client: client.score([1], options))


def test_ids_of_other_libraries_are_ids(service):
    result = call(lambda client: client.generate(numpy.array([1, 2]), max_tokens=3, allow=numpy.arange(5)).result())
    assert result.ids == continuation([1, 2], 3)
    (((_, payload),),) = service.work
    assert payload["allow"] == {"bits": "Hw=="}  # 0b11111


def test_text_of_several_continuations_is_none(service):
    async def work(client):
        client.text([1], n=2)

    with pytest.raises(RequestRejected, match="n is 2"):
        call(work)
