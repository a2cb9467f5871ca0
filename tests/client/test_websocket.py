"""Calls over a WebSocket: one message per operation as LMQL's own server takes it, or a batch in one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import pytest
from websockets.asyncio.server import serve

from cogsmith.client import connect
from cogsmith.errors import AuthenticationError, ServiceUnavailable, StreamBroken

from .arithmetic import FEATURES, answer, continuation

PLAIN = {"dtype": "float32"}
EXTENDED = {"lmtp": "1.1", "features": FEATURES}


class Server:
    """An LMTP server on a free port. A line's items come in a list, as LMQL's server sends them."""

    def __init__(self, info):
        self.info = info
        self.texts = []
        self.closed = 0
        self.connections = 0
        self.cut_after = None
        self.headers = []
        self.repeats_last = False

    @contextlib.asynccontextmanager
    async def running(self, **options):
        async with serve(self.talk, "127.0.0.1", 0, **options) as server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def talk(self, socket):
        self.connections += 1
        self.headers.append(socket.request.headers.get("Authorization"))
        try:
            async for text in socket:
                self.texts.append(text)
                batch = (
                    json.loads(text)
                    if text.startswith("[")
                    else [[text.split(" ")[0], json.loads(text.split(" ", 1)[1])]]
                )
                await self.reply(socket, batch)
        finally:
            self.closed += 1

    async def reply(self, socket, batch):
        for count, line in enumerate(answer(batch, self.info)):
            verb, payload = line.rstrip("\n").split(" ", 1)
            if count == self.cut_after and batch[0][0] != "MODEL_INFO":
                self.cut_after = None
                await socket.close(1011)
                return
            if self.repeats_last:
                without = payload.replace('"length"', "null")
                if without != payload:
                    await socket.send(f"{verb} [{without}]")
            await socket.send(f"{verb} [{payload}]")


def call(server, work, **settings):
    async def main():
        async with server.running() as place, connect(place, **settings) as client:
            return await asyncio.wait_for(work(client), 30)

    return asyncio.run(main())


async def two(client):
    results = await asyncio.gather(*(client.generate([i], max_tokens=9).result() for i in (1, 2)))
    return [result.ids for result in results]


TWO = [continuation([1], 9), continuation([2], 9)]


def test_a_plain_server_gets_an_operation_per_message():
    server = Server(PLAIN)
    assert call(server, two, model="tiny") == TWO
    verbs = [text.split(" ")[0] for text in server.texts]
    assert verbs == ["MODEL_INFO", "GENERATE", "GENERATE"]
    assert all(json.loads(text.split(" ", 1)[1])["model"] == "tiny" for text in server.texts)


def test_an_extended_server_gets_a_batch():
    server = Server(EXTENDED)
    assert call(server, two) == TWO
    assert [text[0] for text in server.texts] == ["M", "["]


def test_lmqls_server_says_little_until_its_model_is_loaded():
    assert call(Server("<unavailable>"), two, model="tiny") == TWO


def test_lmqls_server_gives_the_last_token_twice():
    """With today's transformers; only the second one has a reason."""
    server = Server(PLAIN)
    server.repeats_last = True
    assert call(server, two, model="tiny") == TWO


def test_a_connection_that_breaks_is_made_again():
    server = Server(EXTENDED)
    server.cut_after = 7
    assert call(server, two) == TWO


def test_a_connection_that_breaks_within_a_sample():
    server = Server(EXTENDED)
    server.cut_after = 3
    with pytest.raises(StreamBroken, match="closed the connection") as caught:
        call(server, lambda client: client.generate([1], temperature=1.0).result())
    assert caught.value.num_tokens == 3


def test_closing_a_stream_closes_its_connection():
    server = Server(PLAIN)

    async def work(client):
        stream = client.generate([1], max_tokens=5000)
        await anext(stream)
        await stream.aclose()
        for _ in range(100):
            if server.closed == 2:
                return True
            await asyncio.sleep(0.02)
        return False

    assert call(server, work)


def test_a_token_is_sent_where_it_is_given_and_not_logged(caplog):
    server = Server(PLAIN)
    # Another library's set-up of logging may have switched it off in this process.
    logging.getLogger("cogsmith.client.websocket").disabled = False
    with caplog.at_level(1, "cogsmith.client.websocket"):
        call(server, two, token="r8_mine")
    assert set(server.headers) == {"Bearer r8_mine"}
    ours = [record.getMessage() for record in caplog.records if record.name == "cogsmith.client.websocket"]
    assert any(message.startswith("> GET") for message in ours), "the handshake is logged"
    assert not any("r8_mine" in message for message in ours)


def test_replicates_token_is_not_for_others(monkeypatch):
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_secret")
    server = Server(PLAIN)
    call(server, two)
    assert set(server.headers) == {None}


def test_a_server_that_refuses(monkeypatch):
    server = Server(PLAIN)

    async def main():
        refused = server.running(process_request=lambda connection, request: connection.respond(401, "who are you"))
        async with refused as place, connect(place) as client:
            await client.model_info()

    with pytest.raises(AuthenticationError, match="401: who are you"):
        asyncio.run(main())


def test_no_server():
    async def main():
        async with connect("ws://127.0.0.1:9") as client:
            await client.model_info()

    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        asyncio.run(main())
