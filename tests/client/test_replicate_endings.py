"""How a prediction on Replicate ends: by itself, by its callers, by others; and that nothing goes on unseen."""

from __future__ import annotations

import asyncio
import gc

import httpx2
import pytest

from cogsmith.client import Timeouts, connect
from cogsmith.client.replicate_stream import ReplicatePrediction
from cogsmith.errors import (
    ClientError,
    DeadlineExceeded,
    PredictionCanceled,
    PredictionFailed,
)

from .arithmetic import continuation
from .replicate_calls import MODEL, call, generate


def test_a_prediction_that_fails_before_its_first_output(service):
    service.faults.fails_after = [0]
    with pytest.raises(PredictionFailed, match="the worker died"):
        call(generate())
    assert len(service.work) == 1


def test_a_prediction_that_had_failed_when_it_was_created(service):
    """What was known then is not how it ended: the stream and the prediction say that."""

    async def failed():
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
            prediction = ReplicatePrediction(client, {"status": "failed", "urls": urls})
            async for _ in prediction.text():
                pass

    def answer(request):
        if request.url.path == "/stream":
            raise httpx2.ConnectError("gone")
        return httpx2.Response(200, json={"status": "failed", "output": None, "error": "the worker died"})

    urls = {name: f"http://replicate.test/{name}" for name in ("get", "cancel", "stream")}
    with pytest.raises(PredictionFailed, match="the worker died"):
        asyncio.run(failed())


def test_a_prediction_that_somebody_else_ends(service):
    service.faults.canceled_after = 3
    with pytest.raises(PredictionCanceled, match="canceled"):
        call(generate())
    assert service.cancelled == []


def test_closing_the_only_stream_cancels_the_prediction(service):
    service.faults.holds_after = 3

    async def work(client):
        stream = client.generate([1], max_tokens=50)
        tokens = [await anext(stream) for _ in range(3)]
        await stream.aclose()
        assert stream.finish_reason == "cancelled"
        assert service.cancelled == ["p1"]
        return tuple(token.token for token in tokens), (await stream.result()).ids

    came, kept = call(work)
    assert came == kept == continuation([1], 3)


def test_a_stream_that_nobody_holds_is_ended(service):
    service.faults.holds_after = 2

    async def work(client):
        async for _ in client.generate([1], max_tokens=50):
            break
        await settled(lambda: service.cancelled == ["p1"])
        client.generate([1], max_tokens=50)
        await settled(lambda: len(service.batches) == 2)
        return list(service.cancelled)

    assert call(work) == ["p1"]


def test_a_task_that_nobody_holds_gets_its_tokens(service):
    """The event loop knows tasks weakly: what they wait for must hold them."""
    results = []

    async def work(client):
        async def collect():
            results.append((await client.generate([1], max_tokens=5).result()).ids)

        _ = [asyncio.create_task(collect()) for _ in range(3)]
        del _
        # A collection takes a while where torch is loaded.
        for _ in range(5):
            await asyncio.sleep(0.1)
            gc.collect()
        await settled(lambda: len(results) == 3)

    call(work)
    assert results == [continuation([1], 5)] * 3


async def settled(condition):
    """Wait, some seconds at most, until `condition` holds."""
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.02)


def test_closing_one_of_several_ends_it_alone(service):
    service.faults.holds_after = 6

    async def work(client):
        one, other = (client.generate([i], max_tokens=40) for i in (1, 2))
        await anext(other)
        await other.aclose()
        return (await one.result()).ids

    assert call(work) == continuation([1], 40)
    generates, cancels = service.work
    keys = {payload["prompt"][0]: payload["cancel_key"] for _, payload in generates}
    assert [(verb, payload["cancel_key"]) for verb, payload in cancels] == [("CANCEL", keys[2])]
    assert len(set(keys.values())) == 2
    assert service.cancelled == []


def test_leaving_the_client_ends_all(service):
    service.faults.holds_after = 2

    async def work(client):
        stream = client.generate([1], max_tokens=50)
        await anext(stream)
        return stream

    async def main():
        async with connect(MODEL) as client:
            stream = await work(client)
        with pytest.raises(ClientError, match="closed"):
            await asyncio.wait_for(stream.result(), 5)
        with pytest.raises(ClientError, match="closed"):
            await asyncio.wait_for(client.generate([1]).result(), 5)

    asyncio.run(main())
    assert service.cancelled == ["p1"]


def test_a_finished_prediction_is_not_cancelled(service):
    for _ in range(5):
        call(generate(max_tokens=2))
    assert service.cancelled == []


def test_a_deadline_ends_the_call_and_the_prediction(service):
    service.faults.holds_after = 3

    async def work(client):
        stream = client.generate([1], max_tokens=50, deadline=0.5)
        came = tuple([(await anext(stream)).token for _ in range(3)])
        with pytest.raises(DeadlineExceeded, match=r"0\.5 seconds"):
            await anext(stream)
        return came

    assert call(work) == continuation([1], 3)
    ((_, payload),) = service.work[0]
    assert 0 < payload["deadline_ms"] <= 500
    assert service.cancelled == ["p1"]


def test_a_server_that_gives_no_output_in_time(service):
    service.faults.holds_after = 0
    with pytest.raises(DeadlineExceeded, match=r"no output within 0\.5 seconds"):
        call(generate(), timeouts=Timeouts(first_output=0.5))
    assert service.cancelled == ["p1"]


def test_giving_up_while_a_prediction_is_being_created_cancels_it(service):
    service.faults.create = ["slow"]
    service.faults.holds_after = 1

    async def work(client):
        await client.model_info()
        stream = client.generate([1], max_tokens=50)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.result(), 0.3)
        await stream.aclose()

    call(work)
    assert service.cancelled == ["p1"]
