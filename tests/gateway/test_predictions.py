"""What the gateway knows of its predictions: followed, bounded, kept for a while and forgotten."""

import asyncio
import contextlib

import pytest

from cogsmith.errors import Overloaded, ShuttingDown, UnknownResource
from cogsmith.gateway.prediction import Prediction
from cogsmith.gateway.predictions import PredictionLimits

from .stand_in import gateway, talk, until


def start(local, chunks=("a",), **inputs):
    """Create a prediction without HTTP."""
    return local.predictions.create(local.worker, {"chunks": list(chunks), **inputs}, model_ref="me/tiny")


def test_a_follower_gets_what_was_and_what_comes_and_then_stops():
    async def body():
        prediction = Prediction(1, "me/tiny", "0" * 64, {}, 0, lambda prediction, change: None)
        prediction.begin()
        prediction.write("a")
        seen = []

        async def follow():
            async for event in prediction.follow():
                seen.append((event.event, event.data))

        follower = asyncio.create_task(follow())
        await asyncio.sleep(0)
        prediction.write("b")
        prediction.write("c")
        await asyncio.sleep(0.01)
        assert seen == [("output", "a"), ("output", "b"), ("output", "c")]
        prediction.end("succeeded")
        prediction.write("late")
        await asyncio.wait_for(follower, 5)
        chunks = [chunk async for chunk in prediction.chunks_from(1)]
        return seen, chunks, prediction.output

    seen, chunks, output = asyncio.run(body())
    assert seen[3:] == [("done", "{}")]
    assert chunks == ["b", "c"]
    assert output == ["a", "b", "c"]


def test_a_slow_follower_misses_nothing_that_happens_meanwhile():
    async def body():
        prediction = Prediction(1, "me/tiny", "0" * 64, {}, 0, lambda prediction, change: None)
        prediction.write("a")
        seen = []
        async for event in prediction.follow():
            seen.append(event.data)
            if event.data == "a":
                prediction.write("b")
                prediction.end("succeeded")
        return seen

    assert asyncio.run(body()) == ["a", "b", "{}"]


def test_what_has_ended_stays_as_it_is():
    async def body():
        changes = []
        prediction = Prediction(1, "me/tiny", "0" * 64, {}, 0, lambda prediction, change: changes.append(change))
        prediction.end("canceled")
        prediction.begin()
        prediction.write("a")
        prediction.log("b")
        prediction.requeue()
        prediction.end("failed", error="late")
        return prediction, changes

    prediction, changes = asyncio.run(body())
    assert (prediction.status, prediction.error, prediction.output, prediction.started_at) == (
        "canceled",
        None,
        [],
        None,
    )
    assert changes == ["completed"]


def test_listeners_hear_of_every_change_in_order():
    async def conversation(local):
        heard = []
        local.predictions.subscribe(lambda prediction, change: heard.append((prediction.status, change)))
        await start(local, ["a", "b"]).wait()
        return heard

    assert talk(conversation) == [
        ("processing", "start"),
        ("processing", "output"),
        ("processing", "output"),
        ("succeeded", "completed"),
    ]


def test_a_full_queue_takes_no_more_until_there_is_room_again():
    async def conversation(local):
        running = start(local, hold=True)
        await until(lambda: running.status == "processing")
        waiting = [start(local), start(local)]
        with pytest.raises(Overloaded, match="2 predictions are waiting"):
            start(local)
        refused = await local.http.post("/v1/models/me/tiny/predictions", json={"input": {"chunks": []}})
        local.cog.released.set()
        await asyncio.gather(*(prediction.wait() for prediction in waiting))
        await start(local).wait()
        return refused

    refused = talk(conversation, concurrency=1, limits=PredictionLimits(waiting=2))
    assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
    assert int(refused.headers["retry-after"]) >= 1


def test_what_is_unfinished_has_a_bound_in_bytes_too():
    async def conversation(local):
        def fits():
            with contextlib.suppress(Overloaded):
                return start(local)

        held = start(local, hold=True)
        with pytest.raises(Overloaded, match="more than 100 bytes"):
            start(local, chunks=["x" * 100])
        local.cog.released.set()
        await held.wait()
        await until(fits)

    talk(conversation, limits=PredictionLimits(unfinished_bytes=100))


def test_a_finished_prediction_is_forgotten_after_its_time():
    async def conversation(local):
        prediction = start(local)
        await prediction.wait()
        assert local.predictions.get(prediction.id) is prediction
        assert local.predictions.by_stream_key(prediction.stream_key) is prediction
        await asyncio.sleep(0.4)
        for find, key in [
            (local.predictions.get, prediction.id),
            (local.predictions.by_stream_key, prediction.stream_key),
        ]:
            with pytest.raises(UnknownResource, match=key):
                find(key)
        return list(local.predictions.newest_first())

    assert talk(conversation, limits=PredictionLimits(kept_seconds=0.2)) == []


def test_a_running_prediction_is_not_forgotten():
    async def conversation(local):
        prediction = start(local, hold=True)
        await asyncio.sleep(0.3)
        return local.predictions.get(prediction.id) is prediction

    assert talk(conversation, limits=PredictionLimits(kept_seconds=0.05, kept_bytes=1))


def test_the_oldest_finished_ones_make_room_for_new_ones():
    async def conversation(local):
        made = []
        for _ in range(5):
            made.append(start(local, ["x" * 10_000]))
            await made[-1].wait()
        return made, list(local.predictions.newest_first())

    made, kept = talk(conversation, limits=PredictionLimits(kept_bytes=50_000))
    assert kept == made[:-3:-1]  # each takes 20 kB: input and output


def test_a_prediction_that_grows_too_large_fails_and_says_so():
    async def conversation(local):
        prediction = start(local, ["x" * 1000] * 5, hold=True)
        await prediction.wait()
        await until(lambda: not local.cog.running)
        return prediction

    prediction = talk(conversation, limits=PredictionLimits(prediction_bytes=8000))
    assert prediction.status == "failed"
    assert "8000 bytes" in prediction.error
    assert 0 < len(prediction.output) < 5


def test_draining_lets_predictions_finish_and_takes_no_more():
    async def conversation(local):
        quick, slow = start(local), start(local, hold=True)
        draining = asyncio.create_task(local.predictions.drain(0.5))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown, match="shutting down"):
            start(local)
        refused = await local.http.post("/v1/models/me/tiny/predictions", json={"input": {"chunks": []}})
        await asyncio.wait_for(draining, 10)
        return quick.status, slow.status, local.cog.running, refused.status_code

    assert talk(conversation) == ("succeeded", "canceled", {}, 503)


def test_closing_the_gateway_ends_what_runs_and_what_waits():
    async def body():
        async with gateway(concurrency=1) as local:
            running, waiting = start(local, hold=True), start(local)
            await until(lambda: running.status == "processing")
        return running.status, waiting.status, local.cog.running, local.cog.attempts, running.id

    running, waiting, left, attempts, running_id = asyncio.run(body())
    assert (running, waiting, left, attempts) == ("canceled", "canceled", {}, [running_id])
