"""Hundreds of streams at once through the gateway over a tiny model: every token is the plain model's, none is lost."""

import asyncio
import json

import httpx2
import pytest
from websockets.asyncio.client import connect as connect_socket

from cogsmith.client import connect

from .lmtp_inputs import is_plain_greedy, items, lmtp

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

STREAMS = 300
MAX_TOKENS = 12
FINISHED = [None] * (MAX_TOKENS - 1) + ["length"]


def prompt_of(i):
    return [i % 250, i // 250, 7]


async def generate(http, i):
    """Create prediction `i`; return the items of its stream."""
    body = {"version": "org/tiny", "input": lmtp(prompt_of(i), max_tokens=MAX_TOKENS)}
    created = await http.post("/predictions", json=body)
    assert created.status_code == 201
    output = ""
    async with http.sse(created.json()["urls"]["stream"]) as source:
        async for event in source:
            if event.event == "done":
                assert event.data == "{}"
                return items(output)
            output += event.data
    raise AssertionError(f"stream {i} ended after {output!r}")


def test_hundreds_of_streams_at_once(tiny, gateway):
    model, _ = tiny

    async def generate_all():
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=f"{gateway.url}/v1", timeout=120, limits=limits) as http:
            return await asyncio.gather(*(generate(http, i) for i in range(STREAMS)))

    for i, made in enumerate(asyncio.run(generate_all())):
        assert [item["finish_reason"] for item in made] == FINISHED
        assert is_plain_greedy(model, prompt_of(i), [item["token"] for item in made])


async def generate_over_one_socket(url):
    """Send all operations, one message each; return the items by stream."""
    made = {i: [] for i in range(STREAMS)}
    async with connect_socket(url) as socket:
        for i in range(STREAMS):
            operation = {"prompt": prompt_of(i), "stream_id": i, "max_tokens": MAX_TOKENS}
            await socket.send(f"GENERATE {json.dumps(operation)}")
        while any(len(stream) < MAX_TOKENS for stream in made.values()):
            verb, payload = (await asyncio.wait_for(socket.recv(), 120)).split(" ", 1)
            assert verb == "TOKEN"
            for item in json.loads(payload):
                made[item["stream_id"]].append(item)
    return made


def test_hundreds_of_streams_over_one_websocket(tiny, gateway):
    model, _ = tiny
    made = asyncio.run(generate_over_one_socket(gateway.url.replace("http", "ws", 1)))
    for i, stream in made.items():
        assert [item["finish_reason"] for item in stream] == FINISHED
        assert is_plain_greedy(model, prompt_of(i), [item["token"] for item in stream])


def test_hundreds_of_predictions_in_our_clients_batches(tiny, gateway):
    model, _ = tiny

    async def generate_all():
        async with connect("replicate:org/tiny", base_url=gateway.url, token="any") as client:
            streams = [client.generate(prompt_of(i), max_tokens=MAX_TOKENS) for i in range(STREAMS)]
            return await asyncio.gather(*(stream.result() for stream in streams))

    for i, result in enumerate(asyncio.run(generate_all())):
        (branch,) = result.branches
        assert is_plain_greedy(model, prompt_of(i), [token.token for token in branch.tokens])
