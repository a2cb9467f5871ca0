"""The stream of a prediction, as readers of all kinds get it."""

import asyncio
import json

import pytest

from .stand_in import gateway, said, saying, until

LINES = ['TOKEN {"token": 1, "stream_id": 1}\n', 'TOKEN {"token": 2, "stream_id": 1}\nTOKEN {"token": 3}\n', "MSG {}\n"]


def test_the_bytes_are_those_of_replicates_streams():
    async def body():
        async with gateway() as local:
            created = await local.create(["x\n", "y"])
            answer = await local.http.get(created["urls"]["stream"])
            return answer.headers["content-type"], answer.text

    content_type, text = asyncio.run(body())
    assert content_type == "text/event-stream"
    first, second, last, rest = text.split("\n\n")
    identity, *lines = first.split("\n")
    assert identity.startswith("id: ")
    assert identity.endswith(":0")
    assert lines == ["event: output", "data: x", "data: "]
    assert second.split("\n")[1:] == ["event: output", "data: y"]
    assert last.split("\n")[1:] == ["event: done", "data: {}"]
    assert rest == ""


@pytest.mark.parametrize(
    "chunks", [LINES, ["a\n", "\n", "", "a\n\nb", " leading", "trailing ", ": no comment", "data: x", "é😀\u2028"]]
)
def test_every_chunk_comes_out_as_it_went_in(chunks):
    async def body():
        async with gateway() as local:
            return await local.read(await local.create(chunks))

    events = asyncio.run(body())
    assert [data for _, event, data in events if event == "output"] == chunks
    assert [event for _, event, _ in events] == ["output"] * len(chunks) + ["done"]


def test_every_event_has_an_id_of_its_own_even_where_the_first_is_an_error():
    async def body():
        async with gateway() as local:
            local.cog.plans = [saying(said("completed", status="failed", error="boom", metrics={}))]
            return await local.read(await local.create())

    (error_id, error, data), (done_id, done, reason) = asyncio.run(body())
    assert (error, json.loads(data)) == ("error", {"detail": "boom"})
    assert (done, json.loads(reason)) == ("done", {"reason": "error"})
    assert error_id
    assert done_id not in ("", error_id)


def test_logs_and_cancellation_have_their_events():
    async def body():
        async with gateway() as local:
            talk = saying(said("log", source="stdout", data="hello\n"), said("completed", status="canceled"))
            local.cog.plans = [talk]
            return await local.read(await local.create())

    assert [event[1:] for event in asyncio.run(body())] == [("logs", "hello\n"), ("done", '{"reason": "canceled"}')]


def test_a_reader_who_comes_back_goes_on_right_after_the_last_event_it_saw():
    async def body():
        async with gateway() as local:
            created = await local.create([str(number) for number in range(7)])
            whole = await local.read(created)
            rests = [await local.read(created, **{"Last-Event-ID": event_id}) for event_id, _, _ in whole[:-1]]
            strangers = [
                await local.read(created, **{"Last-Event-ID": text})
                for text in ("x", "1:2", "9:999", "1:²".encode("latin-1"))
            ]
            finished = await local.http.get(created["urls"]["stream"], headers={"Last-Event-ID": whole[-1][0]})
            return whole, rests, strangers, finished.status_code

    whole, rests, strangers, status = asyncio.run(body())
    assert rests == [whole[number + 1 :] for number in range(len(whole) - 1)]
    assert strangers == [whole] * 4
    assert status == 204  # an event source does not come back after this


def test_a_cut_reader_that_resumes_while_the_model_works_misses_and_repeats_nothing():
    async def body():
        async with gateway() as local:
            created = await local.create(["a", "b", "c"], hold=True)
            async with local.http.sse(created["urls"]["stream"]) as source:
                first = await anext(aiter(source))
            resumed = asyncio.create_task(local.read(created, **{"Last-Event-ID": first.id}))
            await until(lambda: len(local.predictions.get(created["id"]).output) == 3)
            local.cog.released.set()
            return first.data, [data for _, event, data in await resumed if event == "output"]

    assert asyncio.run(body()) == ("a", ["b", "c"])


def test_output_reaches_its_readers_while_the_prediction_still_runs_and_survives_them():
    async def body():
        async with gateway() as local:
            created = await local.create(["a"], hold=True)
            for _ in range(3):
                async with local.http.sse(created["urls"]["stream"]) as source:
                    assert (await anext(aiter(source))).data == "a"
            await asyncio.sleep(0.1)
            assert local.cog.cancels == []
            local.cog.released.set()
            return (await local.ended(created))["status"]

    assert asyncio.run(body()) == "succeeded"


def test_fifty_readers_all_get_everything_and_one_that_does_not_read_delays_nobody():
    chunks = [f"{number:04}" * 1000 for number in range(200)]

    async def body():
        async with gateway() as local:
            created = await local.create(chunks)
            async with local.http.sse(created["urls"]["stream"]):  # connected, and never read
                readers = [local.read(created) for _ in range(50)]
                return await asyncio.wait_for(asyncio.gather(*readers), 60)

    for events in asyncio.run(body()):
        assert [data for _, event, data in events if event == "output"] == chunks


def test_streams_are_found_by_a_key_that_nothing_else_tells():
    async def body():
        async with gateway() as local:
            created = await local.create()
            other = await local.http.get(f"/v1/stream/{created['id']}")
            return created, other.status_code

    created, status = asyncio.run(body())
    key = created["urls"]["stream"].rpartition("/")[2]
    assert len(key) >= 32
    assert created["id"] not in key
    assert status == 404
