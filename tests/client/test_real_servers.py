"""The client against the real Cog runtime, the engine in this process, and the gateway: plain transformers' numbers."""

from __future__ import annotations

import asyncio
import json
import re

import jsonschema
import pytest
import torch

from cogsmith.errors import (
    DeadlineExceeded,
    OperationFailed,
    RequestRejected,
    TokenizerMismatch,
)

from ..e2e import gateway as gateways
from ..e2e.conftest import byte_tokenizer
from ..engine.models import plain_logprobs
from .real_calls import call, greedy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("client-servers"),
    pytest.mark.usefixtures("environment"),
]


@pytest.fixture(scope="module")
def gateway(tiny, tmp_path_factory):
    """A gateway over the tiny model: its address."""
    _, folder = tiny
    with gateways.running(folder, log=tmp_path_factory.mktemp("gateway") / "log") as running:
        yield running.url.removeprefix("http://")


@pytest.fixture(params=["http", "local", "replicate", "websocket"])
def place(request, monkeypatch):
    """An endpoint of each kind, over the same model."""
    if request.param == "http":
        return request.getfixturevalue("served")[1]
    if request.param == "local":
        return f"local:{request.getfixturevalue('tiny')[1]}"
    address = request.getfixturevalue("gateway")
    monkeypatch.setenv("REPLICATE_BASE_URL", f"http://{address}")
    return "replicate:me/tiny" if request.param == "replicate" else address


def test_many_at_once(tiny, place):
    model, _ = tiny

    async def work(client):
        return await asyncio.gather(*(client.generate([i, 5], max_tokens=12).result() for i in range(40)))

    for first, result in enumerate(call(place, work)):
        ids, logprobs = greedy(model, [first, 5], 12)
        assert result.ids == ids
        assert [token.logprob for token in result.tokens] == pytest.approx(logprobs, abs=1e-4)
        assert result.finish_reason == "length"


def test_constraints(place):
    """A model that says anything, held to texts; nothing of them is lost where the model has no end token."""
    schema = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}, "required": ["age"]}
    schema = {**schema, "additionalProperties": False, "x-guidance": {"whitespace_flexible": False}}
    settings = {"max_tokens": 60, "temperature": 1.0}

    async def work(client):
        return await asyncio.gather(
            client.generate([1, 5], constraint={"choice": ["yes", "no"]}, n=4, **settings).result(),
            *(client.text([i], constraint={"regex": "[a-c]{3}-[0-9]"}, **settings).result() for i in range(1, 9)),
            client.text([9], constraint={"json_schema": schema}, **settings).result(),
            client.text([9], constraint={"lark": 'start: "(" start? ")"'}, **settings).result(),
            client.text([9], constraint={"regex": "(a"}, **settings).result(),
            client.text([9], max_tokens=3).result(),
            return_exceptions=True,
        )

    chosen, *matching, json_text, brackets, refused, free = call(place, work)
    assert {branch.finish_reason for branch in chosen.branches} == {"stop"}
    assert {bytes_of(branch.ids) for branch in chosen.branches} <= {b"yes", b"no"}
    assert all(re.fullmatch("[a-c]{3}-[0-9]", text) for text in matching)
    jsonschema.validate(json.loads(json_text), schema)
    assert brackets == "(" * (len(brackets) // 2) + ")" * (len(brackets) // 2)
    assert isinstance(refused, OperationFailed)
    assert "unclosed group" in str(refused)
    assert free


def bytes_of(ids):
    """What ids of the byte tokenizer mean, by the alphabet of byte-level BPE."""
    return bytes(ord(byte_tokenizer().convert_ids_to_tokens(id_)) for id_ in ids)


def test_scores_and_distribution(tiny, place):
    model, _ = tiny
    options = [[10, 11, 12], [13], [14, 15]]

    async def work(client):
        return await asyncio.gather(
            client.score([1, 2], options, top_logprobs=2),
            client.distribution([1, 2], options),
            client.distribution([1, 2], options, normalise="mean"),
        )

    scored, by_sum, by_mean = call(place, work)
    sums, means = [], []
    for option, one in zip(options, scored, strict=True):
        rows = plain_logprobs(model, [1, 2, *option])[1:-1]
        expected = [rows[step, id_].item() for step, id_ in enumerate(option)]
        assert [token.logprob for token in one.tokens] == pytest.approx(expected, abs=1e-4)
        assert max(one.tokens[0].top_logprobs, key=one.tokens[0].top_logprobs.get) == rows[0].argmax()
        sums.append(sum(expected))
        means.append(sum(expected) / len(option))
    assert by_sum == pytest.approx(torch.tensor(sums).softmax(0).tolist(), abs=1e-4)
    assert by_mean == pytest.approx(torch.tensor(means).softmax(0).tolist(), abs=1e-4)


def test_a_mask_and_chosen_ids(tiny, place):
    model, _ = tiny
    allowed = [3, *range(100, 140)]
    result = call(
        place, lambda client: client.generate([4, 5], max_tokens=8, allow=allowed, logprob_ids=[3, 7]).result()
    )
    ids, logprobs = greedy(model, [4, 5], 8, allowed)
    assert result.ids == ids
    assert [token.logprob for token in result.tokens] == pytest.approx(logprobs, abs=1e-4)
    assert all(set(token.logprobs) == {3} for token in result.tokens)


def test_seeded_branches_are_repeatable(place):
    options = {"max_tokens": 10, "temperature": 1.0, "n": 3, "seed": 11}
    first, second = (call(place, lambda client: client.generate([1], **options).result()).branches for _ in range(2))
    assert [branch.ids for branch in first] == [branch.ids for branch in second]
    assert len({branch.ids for branch in first}) == 3


def printable(tokenizer):
    """Ids that are a character each."""
    return [id_ for id_ in range(256) if 32 <= ord(tokenizer.decode([id_])[0]) < 127]


def test_text_with_the_servers_own_tokenizer(tiny, place):
    model, _ = tiny
    tokenizer = byte_tokenizer()
    prompt, allowed = tokenizer.encode("Grüße"), printable(tokenizer)

    async def work(client):
        pieces = [piece async for piece in client.text("Grüße", max_tokens=40, allow=allowed)]
        return (await client.tokenizer()).encode("Grüße"), pieces

    encoded, pieces = call(place, work)
    assert list(encoded) == prompt
    assert pieces == [tokenizer.decode([id_]) for id_ in greedy(model, prompt, 40, allowed)[0]]


def test_stop_text(tiny, place):
    model, _ = tiny
    tokenizer = byte_tokenizer()
    prompt, allowed = tokenizer.encode("ab"), printable(tokenizer)
    ids, _ = greedy(model, prompt, 30, allowed)
    text = tokenizer.decode(ids)
    stop = text[10:13]

    async def work(client):
        stream = client.text("ab", max_tokens=30, allow=allowed, stop=stop)
        return "".join([piece async for piece in stream]), stream.tokens.finish_reason

    assert call(place, work) == (text[: text.index(stop)], "stop_sequence")


def test_an_error_is_its_operations_own(tiny, place):
    model, _ = tiny

    async def work(client):
        bad, good = client.generate([999], max_tokens=3), client.generate([1], max_tokens=3)
        with pytest.raises(OperationFailed, match="999"):
            await bad.result()
        return (await good.result()).ids

    assert call(place, work) == greedy(model, [1], 3)[0]


def test_closing_one_leaves_the_other(tiny, place):
    model, _ = tiny

    async def work(client):
        one, other = (client.generate([i], max_tokens=count) for i, count in ((1, 60), (2, 7000)))
        await anext(other)
        await other.aclose()
        result = await one.result()
        # A slot that is still taken would make this wait.
        again = await asyncio.wait_for(client.generate([1], max_tokens=60).result(), 20)
        return result.ids, again.ids

    ids, _ = greedy(model, [1], 60)
    assert call(place, work) == (ids, ids)


def test_a_deadline(place):
    async def work(client):
        await client.model_info()
        stream = client.generate([1], max_tokens=8000, deadline=0.5)
        with pytest.raises(DeadlineExceeded):
            await stream.result()
        return stream.usage.tokens

    assert 0 < call(place, work) < 8000


def test_another_tokenizer(place):
    other = byte_tokenizer()
    other.add_tokens(["<new>"])
    with pytest.raises(TokenizerMismatch, match=r"has 257 tokens, the server's 256; id 256 is '<new>' here"):
        call(place, lambda client: client.generate([1]).result(), tokenizer=other.backend_tokenizer)


def test_no_chat_template(place):
    with pytest.raises(RequestRejected, match="no chat template"):
        call(place, lambda client: client.chat([{"role": "user", "content": "x"}]).result())
