"""A prediction's way through a Cog server that does all that Cog has been seen to do."""

import asyncio
import os
import tempfile
from pathlib import Path

from .stand_in import said, saying, start, talk, until

AT_CAPACITY = (409, {"error": "At capacity - all prediction slots busy", "status": "failed"})


def test_no_more_run_at_once_than_the_model_has_slots_and_they_run_in_their_order():
    async def conversation(local):
        made = [start(local, [str(number)]) for number in range(12)]
        await asyncio.gather(*(prediction.wait() for prediction in made))
        return [prediction.id for prediction in made], local.cog

    made, cog = talk(conversation, concurrency=1)
    assert cog.attempts == made
    assert cog.most_running == 1


def test_slots_are_used_side_by_side():
    async def conversation(local):
        made = [start(local, hold=True) for _ in range(5)]
        await until(lambda: len(local.cog.running) == 3)
        await asyncio.sleep(0.05)
        local.cog.released.set()
        await asyncio.gather(*(prediction.wait() for prediction in made))
        return local.cog.most_running

    assert talk(conversation, concurrency=3) == 3


def test_a_busy_server_is_asked_again_and_the_prediction_is_none_the_wiser():
    async def conversation(local):
        local.cog.refusals = [AT_CAPACITY] * 5
        prediction = start(local)
        await prediction.wait()
        return prediction, local.cog.attempts, local.worker.num_suspected

    prediction, attempts, num_suspected = talk(conversation)
    assert (prediction.status, prediction.output, prediction.error) == ("succeeded", ["a", "b"], None)
    assert attempts == [prediction.id] * 6
    assert num_suspected == 0


def test_a_cancel_that_overtakes_the_start_is_repeated_until_cog_heeds_it():
    async def conversation(local):
        slow = asyncio.Event()

        async def late(inputs, cancelled):
            await slow.wait()
            cancelled.clear()  # it came too early, and is lost
            async for event in local.cog.say_chunks(inputs, cancelled):
                yield event

        local.cog.plans = [late]
        prediction = start(local, hold=True)
        await until(lambda: local.cog.running)
        local.predictions.cancel(prediction.id)
        await until(lambda: local.cog.cancels)
        slow.set()
        await until(lambda: not local.cog.running)
        return prediction, len(local.cog.cancels)

    prediction, num_cancels = talk(conversation)
    assert (prediction.status, prediction.output) == ("canceled", [])
    assert num_cancels >= 2


def test_a_prediction_cancelled_while_the_model_boots_never_reaches_it():
    async def conversation(local):
        local.worker.booted.clear()
        prediction = start(local)
        await until(lambda: local.worker.num_asked == 1)
        local.predictions.cancel(prediction.id)
        other = start(local)
        local.worker.booted.set()
        await other.wait()
        return prediction.status, other.id, local.cog.attempts

    status, other, attempts = talk(conversation, concurrency=1)
    assert (status, attempts) == ("canceled", [other])


def test_a_cancelled_prediction_keeps_its_slot_until_cog_lets_go_of_it():
    async def conversation(local):
        deaf = asyncio.Event()

        async def plan(inputs, cancelled):
            await deaf.wait()
            yield said("completed", status="canceled", metrics={})

        local.cog.plans = [plan]
        first = start(local)
        await until(lambda: local.cog.running)
        local.predictions.cancel(first.id)
        second = start(local)
        await asyncio.sleep(0.3)
        waiting = second.status
        deaf.set()
        await second.wait()
        return waiting, second.status, local.cog.most_running

    assert talk(conversation, concurrency=1) == ("starting", "succeeded", 1)


def test_a_finished_prediction_is_not_cancelled_in_cog():
    async def conversation(local):
        made = [start(local) for _ in range(20)]
        await asyncio.gather(*(prediction.wait() for prediction in made))
        await asyncio.sleep(0.1)
        return local.cog.cancels

    assert talk(conversation) == []


def test_what_cog_leaves_on_disk_is_removed_wherever_other_temporary_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = Path("/tmp/coglet/predictions")
    anothers = left / f"another-{os.getpid()}"

    async def conversation(local):
        async def plan(inputs, cancelled):
            for name in ("inputs", "outputs"):
                Path(left / prediction.id / name).mkdir(parents=True)
            yield said("completed", status="succeeded", metrics={})

        anothers.mkdir(parents=True)
        local.cog.plans = [plan]
        prediction = start(local)
        await prediction.wait()
        await until(lambda: not (left / prediction.id).exists())

    talk(conversation)
    assert anothers.exists()
    anothers.rmdir()


def test_a_fault_of_the_gateway_fails_the_prediction_and_no_other():
    async def conversation(local):
        local.cog.plans = [saying("event: output\ndata: {no JSON\n\n")]
        broken, whole = start(local), start(local)
        await asyncio.gather(broken.wait(), whole.wait())
        return broken, whole

    broken, whole = talk(conversation, concurrency=1)
    assert (broken.status, whole.status) == ("failed", "succeeded")
    assert "gateway failed" in broken.error
