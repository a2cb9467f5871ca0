"""A prediction's way through a Cog server that does all that Cog has been seen to do."""

import asyncio
import json
import os
import tempfile
from pathlib import Path

import pytest

from cogsmith.errors import ServeError

from .stand_in import gateway, said, saying, until

AT_CAPACITY = (409, {"error": "At capacity - all prediction slots busy", "status": "failed"})
NOT_READY = (503, {"error": "Setup has not finished yet...", "status": "failed"})
CRASHED = said("completed", status="failed", error="Worker crashed", output=None, metrics={})


def talk(conversation, **settings):
    """Run `conversation(local)` with a gateway; return what it returns."""

    async def body():
        async with gateway(**settings) as local:
            return await conversation(local)

    return asyncio.run(body())


def start(local, chunks=("a", "b"), **inputs):
    """Create a prediction without HTTP."""
    return local.predictions.create(local.worker, {"chunks": list(chunks), **inputs}, model_ref="me/tiny")


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


@pytest.mark.parametrize(
    "breakage",
    [
        {"refusals": [NOT_READY]},
        {"plans": [saying()]},
        {"plans": [saying(CRASHED)]},
        {"plans": [saying(said("error", error="SSE stream lagged", skipped=3))]},
        {"refusals": [(500, {})], "plans": [saying(CRASHED)]},
    ],
)
def test_a_server_that_breaks_before_any_output_is_suspected_and_the_prediction_runs_again(breakage):
    async def conversation(local):
        vars(local.cog).update(breakage)
        prediction = start(local)
        await prediction.wait()
        return prediction, local.worker.num_suspected

    num_breaks = sum(map(len, breakage.values()))
    prediction, num_suspected = talk(conversation)
    assert (prediction.status, prediction.output, prediction.error) == ("succeeded", ["a", "b"], None)
    assert num_suspected == num_breaks


@pytest.mark.parametrize("refusals", [[NOT_READY] * 3, [(500, {"error": "Setup has not finished"})] * 3])
def test_a_server_that_breaks_three_times_fails_the_prediction(refusals):
    async def conversation(local):
        local.cog.refusals = refusals
        prediction = start(local)
        await prediction.wait()
        return prediction, local.cog.attempts

    prediction, attempts = talk(conversation)
    assert prediction.status == "failed"
    assert "broke off 3 times" in prediction.error
    assert "Setup has not finished" in prediction.error
    assert len(attempts) == 3


def test_a_prediction_whose_output_was_seen_is_not_run_again():
    async def conversation(local):
        local.cog.plans = [saying(said("output", chunk="a", index=0))]
        prediction = start(local)
        await prediction.wait()
        return prediction, local.cog.attempts, local.worker.num_suspected

    prediction, attempts, num_suspected = talk(conversation)
    assert (prediction.status, prediction.output) == ("failed", ["a"])
    assert "broke off after some output" in prediction.error
    assert (len(attempts), num_suspected) == (1, 1)


def test_a_server_that_is_gone_is_suspected():
    async def conversation(local):
        local.worker.url = "http://127.0.0.1:1"
        prediction = start(local)
        await prediction.wait()
        return prediction, local.worker.num_suspected

    prediction, num_suspected = talk(conversation)
    assert prediction.status == "failed"
    assert num_suspected == 3


def test_what_cog_refuses_fails_with_its_reason_and_is_not_tried_again():
    detail = {"detail": [{"loc": ["body", "input", "n"], "msg": "9 is greater than the maximum of 5"}]}

    async def conversation(local):
        local.cog.refusals = [(422, detail)]
        prediction = start(local)
        await prediction.wait()
        return prediction, local.cog.attempts, local.worker.num_suspected

    prediction, attempts, num_suspected = talk(conversation)
    assert prediction.status == "failed"
    assert "9 is greater than the maximum of 5" in prediction.error
    assert (len(attempts), num_suspected) == (1, 0)


def test_a_failure_of_the_model_without_output_is_told_to_a_client_of_lmtp_1_0():
    async def conversation(local):
        local.cog.plans = [saying(said("completed", status="failed", error="no memory", metrics={}))]
        prediction = start(local, **batch(["SCORE", {"stream_id": 4, "prompt": [], "scored": [2]}]))
        await prediction.wait()
        return prediction

    prediction = talk(conversation)
    assert (prediction.status, prediction.error) == ("failed", "no memory")
    assert prediction.output == ['TOKEN {"stream_id": 4, "error": "the prediction failed: no memory"}\n']


def test_a_failure_of_the_model_keeps_its_output_and_its_metrics():
    async def conversation(local):
        failed = said("completed", status="failed", error="Prediction failed: boom", metrics={"tokens": 3})
        local.cog.plans = [
            saying(said("output", chunk="a", index=0), said("log", source="stderr", data="oh\n"), failed)
        ]
        prediction = start(local)
        await prediction.wait()
        return prediction, local.cog.attempts

    prediction, attempts = talk(conversation)
    assert (prediction.status, prediction.error) == ("failed", "Prediction failed: boom")
    assert (prediction.output, prediction.logs, prediction.metrics["tokens"]) == (["a"], "oh\n", 3)
    assert len(attempts) == 1


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


def test_a_model_that_cannot_be_set_up_fails_its_predictions_with_the_reason():
    async def conversation(local):
        async def ready():
            raise ServeError("the model's set-up ended: no weights here")

        local.worker.ready = ready
        prediction = start(local)
        await prediction.wait()
        return prediction, local.cog.attempts

    prediction, attempts = talk(conversation)
    assert (prediction.status, prediction.error) == ("failed", "the model's set-up ended: no weights here")
    assert attempts == []


def batch(*operations):
    return {"ops_batch_json": json.dumps(operations)}


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (batch(["GENERATE", {"stream_id": 1, "prompt": [1]}]), ['TOKEN {"stream_id": 1, "error": "no weights"}\n']),
        (batch(["MODEL_INFO", {"stream_id": 2}]), ['MSG {"stream_id": 2, "error": "no weights"}\n']),
        (batch(["GENERATE", {"stream_id": 1, "prompt": [1], "lmtp": "1.1"}]), []),
        ({"ops_batch_json": "nonsense"}, []),
        ({}, []),
    ],
)
def test_a_client_of_lmtp_1_0_is_told_in_its_own_words_why_it_gets_nothing(inputs, output):
    """LMQL 0.7.3 takes a stream of nothing but its end for an IndexError."""

    async def conversation(local):
        async def ready():
            raise ServeError("no weights")

        local.worker.ready = ready
        prediction = start(local, **inputs)
        await prediction.wait()
        return prediction

    prediction = talk(conversation)
    assert (prediction.status, prediction.error, prediction.output) == ("failed", "no weights", output)


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
