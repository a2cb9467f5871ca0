"""Servers that answer what nobody would expect: the error says so, and never calls it a fault of ours."""

from __future__ import annotations

import asyncio
import json

import pytest

from cogsmith.client import connect
from cogsmith.errors import (
    CogsmithError,
    InternalError,
    PredictionFailed,
    RequestRejected,
    ServiceUnavailable,
    StreamBroken,
)

MODEL = {"latest_version": {"id": "v"}}
EVENTS = "text/event-stream"


def asked(endpoint, answers):
    """Return the error of asking a server that answers each path's beginning with (status, type, body)."""

    async def main():
        async def answer(reader, writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ", 2)[1]
            status, kind, body = next(found for start, found in answers.items() if path.startswith(start))
            text = (body if isinstance(body, str) else json.dumps(body)).replace("HERE", place).encode()
            top = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n"
            writer.write(top.encode() + b"Connection: close\r\n\r\n" + text)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        place = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, connect(endpoint.replace("HERE", place), base_url=place, token="t") as client:
            with pytest.raises(CogsmithError) as caught:
                await asyncio.wait_for(client.model_info(), 20)
        assert not isinstance(caught.value, InternalError), caught.value
        return caught.value

    return asyncio.run(main())


def created(status, body):
    return {"/v1/models": (200, "application/json", MODEL), "/v1/predictions": (status, "application/json", body)}


@pytest.mark.parametrize("body", [{"id": "x"}, {"status": "starting"}, {"status": "starting", "urls": {"get": 1}}])
def test_a_creation_without_a_prediction_may_have_begun_one(body):
    error = asked("replicate:o/m", created(201, body))
    assert isinstance(error, ServiceUnavailable)
    assert error.may_have_run


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        (["nope"], "nope"),
        ([{"msg": "bad"}, 5], "bad; 5"),
        ([{"loc": ["body"], "msg": "bad"}], "bad"),
        ([{"loc": ["body", "input", "n"], "msg": "bad"}], "n: bad"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
@pytest.mark.parametrize("endpoint", ["replicate:o/m", "HERE"])
def test_any_detail_of_a_refusal_is_shown(detail, told, endpoint):
    refusal = (422, "application/json", {"detail": detail})
    error = asked(endpoint, {**created(422, {}), "/predictions": refusal, "/v1/predictions": refusal})
    assert isinstance(error, RequestRejected)
    assert error.message.endswith(f"422: {told}")


def test_an_output_that_is_no_text():
    prediction = {"status": "succeeded", "output": {"a": 1}, "urls": {"get": "HERE/it", "cancel": "HERE/it"}}
    error = asked("replicate:o/m", {**created(201, prediction), "/it": (200, "application/json", prediction)})
    assert isinstance(error, StreamBroken)


@pytest.mark.parametrize("data", ["nonsense", "[1]", '{"x": 1}', '{"chunk": 5}'])
def test_events_that_are_not_cogs(data):
    error = asked("HERE", {"/predictions": (200, EVENTS, f"event: output\ndata: {data}\n\n")})
    assert isinstance(error, PredictionFailed)
