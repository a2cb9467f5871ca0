"""What is killed and cut under the gateway's streams: every token that comes is that of an undisturbed run.

The undisturbed run is the plain model's greedy one.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import struct
import time
from contextlib import asynccontextmanager

import httpx2
import pytest
from websockets.asyncio.client import connect as connect_socket

from cogsmith.client import connect

from . import gateway as gateways
from .lmtp_inputs import is_plain_greedy, lmtp, tokens

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

# Of the tiny model: Cog takes so many predictions at once, and so many streams share a step.
SLOTS, BATCH = 16, 8
SECONDS = 60


@pytest.fixture
def start(tiny, tmp_path):
    """Starts a gateway that a test may kill, with its model ready: `with start() as running: ...`"""
    _, folder = tiny

    def start():
        return gateways.running(folder, log=tmp_path / "log")

    return start


@asynccontextmanager
async def api(gateway):
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=f"{gateway.url}/v1", timeout=SECONDS, limits=limits) as http:
        yield http


async def create(http, inputs):
    answer = await http.post("/predictions", json={"version": "org/tiny", "input": inputs})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def events(http, prediction, last_event_id=None):
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    async with http.sse(prediction["urls"]["stream"], headers=headers) as source:
        async for event in source:
            yield event
            if event.event == "done":
                return


async def eventually(condition):
    """Wait until the coroutine function `condition` gives a true value."""
    async with asyncio.timeout(SECONDS):
        while not await condition():
            await asyncio.sleep(0.05)


def kill(processes):
    assert processes
    for process in processes:
        os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize(
    ("endpoint", "victims"),
    [("replicate:org/tiny", "workers"), ("replicate:org/tiny", "servers"), ("websocket", "workers")],
)
def test_a_killed_model_costs_our_client_no_token(tiny, gateway, endpoint, victims):
    model, _ = tiny
    endpoint = gateway.url.replace("http", "ws", 1) if endpoint == "websocket" else endpoint

    async def generate(client, i):
        """The tokens of one stream; the first stream kills the model after some."""
        made = []
        async for token in client.generate([i, 5], max_tokens=300):
            made.append(token.token)
            if i == 0 and len(made) == 50:
                kill(getattr(gateway, victims)())
        return made

    async def generate_all():
        settings = {} if endpoint.startswith("ws") else {"base_url": gateway.url, "token": "any"}
        async with connect(endpoint, **settings) as client, asyncio.timeout(SECONDS):
            return await asyncio.gather(*(generate(client, i) for i in range(4)))

    for i, made in enumerate(asyncio.run(generate_all())):
        assert len(made) == 300
        assert is_plain_greedy(model, [i, 5], made)


def test_a_killed_model_fails_what_had_begun_and_serves_what_waited(tiny, gateway):
    """A client of 1.1 is told, and may recover: the tokens that came are right, and the end says that it is none."""
    model, _ = tiny

    async def run():
        async with api(gateway) as http:
            begun = [await create(http, lmtp([i, 6], max_tokens=4000, lmtp="1.1")) for i in range(BATCH)]
            streams = [events(http, prediction) for prediction in begun]
            firsts = [await anext(stream) for stream in streams]
            # Some of these wait in Cog, the others for a slot.
            waiting = [await create(http, lmtp([i, 9], max_tokens=30)) for i in range(SLOTS)]
            kill(gateway.workers())
            cut = [[first] + [event async for event in stream] for first, stream in zip(firsts, streams, strict=True)]
            served = [[event async for event in events(http, prediction)] for prediction in waiting]
            failed = [(await http.get(prediction["urls"]["get"])).json() for prediction in begun]
            return cut, served, failed

    cut, served, failed = asyncio.run(run())
    for i, (*output, error, done) in enumerate(cut):
        assert (error.event, done.event, json.loads(done.data)) == ("error", "done", {"reason": "error"})
        assert "broke off" in json.loads(error.data)["detail"]
        assert is_plain_greedy(model, [i, 6], tokens("".join(event.data for event in output)))
    for i, (*output, done) in enumerate(served):
        made = tokens("".join(event.data for event in output))
        assert (done.data, len(made)) == ("{}", 30)
        assert is_plain_greedy(model, [i, 9], made)
    assert {prediction["status"] for prediction in failed} == {"failed"}


def test_readers_that_are_cut_go_on_where_they_were(tiny, gateway):
    model, _ = tiny
    chance = random.Random(0)

    async def read(http, i):
        """Read a stream in pieces of random length, a connection each; return the data and the ids of its output."""
        prediction = await create(http, lmtp([i, 7, 7], max_tokens=100))
        data, ids = "", []
        while True:
            async for event in events(http, prediction, ids[-1] if ids else None):
                if event.event == "done":
                    assert (await http.get(prediction["urls"]["get"])).json()["status"] == "succeeded"
                    return data, ids
                data += event.data
                ids.append(event.id)
                if chance.random() < 0.2:
                    break

    async def read_all():
        async with api(gateway) as http, asyncio.timeout(SECONDS):
            return await asyncio.gather(*(read(http, i) for i in range(16)))

    for i, (data, ids) in enumerate(asyncio.run(read_all())):
        assert len(ids) == len(set(ids))
        made = tokens(data)
        assert len(made) == 100
        assert is_plain_greedy(model, [i, 7, 7], made)


def reset(address, request):
    """Send `request` and tear the connection down at once: the peer gets a RST."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(request)
        time.sleep(0.01)


def test_torn_connections_disturb_nobody(tiny, gateway):
    model, _ = tiny
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({"version": "org/tiny", "input": lmtp([1], max_tokens=3)}).encode()
    head = b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def run():
        async with api(gateway) as http:
            prediction = await create(http, lmtp([3, 3], max_tokens=400))
            stream = f"GET /{prediction['urls']['stream'].split('/', 3)[3]} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            requests = itertools.cycle([stream, whole, whole[:-9], head[:30]])
            torn = [asyncio.to_thread(reset, (host, int(port)), request) for request in itertools.islice(requests, 40)]
            output, *_ = await asyncio.gather(read(http, prediction), *torn)
            return output

    async def read(http, prediction):
        return [event.data async for event in events(http, prediction) if event.event == "output"]

    made = tokens("".join(asyncio.run(run())))
    assert len(made) == 400
    assert is_plain_greedy(model, [3, 3], made)


def test_a_websocket_that_goes_away_frees_its_slots(gateway):
    async def run():
        async with api(gateway) as http:

            async def all_are(status):
                newest = (await http.get("/predictions")).json()["results"][:SLOTS]
                return [prediction["status"] for prediction in newest] == [status] * SLOTS

            async with connect_socket(gateway.url.replace("http", "ws", 1)) as ws:
                for i in range(SLOTS):
                    operation = {"prompt": [i, 8], "stream_id": i, "max_tokens": 8000}
                    await ws.send(f"GENERATE {json.dumps(operation)}")
                await eventually(lambda: all_are("processing"))
                ws.transport.abort()
            await eventually(lambda: all_are("canceled"))
            # What was not cancelled in Cog too would hold its slot for much longer.
            async with asyncio.timeout(10):
                prediction = await create(http, lmtp([1], max_tokens=5))
                return "".join([event.data async for event in events(http, prediction) if event.event == "output"])

    assert len(tokens(asyncio.run(run()))) == 5


def test_sigterm_lets_running_streams_finish_and_leaves_no_process(tiny, start):
    model, _ = tiny

    async def run(running):
        async with api(running) as http:
            prediction = await create(http, lmtp([2, 2], max_tokens=600))
            stream = events(http, prediction)
            output = [await anext(stream)]
            running.process.send_signal(signal.SIGTERM)
            refused = await http.post("/predictions", json={"version": "org/tiny", "input": lmtp([1])})
            output += [event async for event in stream]
            return refused, output

    with start() as running:
        refused, (*output, done) = asyncio.run(run(running))
        processes = [*running.servers(), *running.workers()]
        assert running.process.wait(SECONDS) == 0
    assert refused.status_code == 503
    assert (done.event, done.data) == ("done", "{}")
    made = tokens("".join(event.data for event in output))
    assert len(made) == 600
    assert is_plain_greedy(model, [2, 2], made)
    assert not any(map(is_running, processes))


def test_a_killed_gateway_leaves_no_process(start):
    async def run(running):
        async with api(running) as http:
            stream = events(http, await create(http, lmtp([2], max_tokens=8000)))
            await anext(stream)
            processes = [*running.servers(), *running.workers()]
            running.process.kill()
            with pytest.raises(httpx2.TransportError):
                [event async for event in stream]

            async def all_are_gone():
                return not any(map(is_running, processes))

            await eventually(all_are_gone)

    with start() as running:
        asyncio.run(run(running))


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
