"""Predictions whose Cog server, or model, fails: which run again, and what the others say."""

import json

import pytest

from cogsmith.errors import ServeError

from .stand_in import said, saying, start, talk

NOT_READY = (503, {"error": "Setup has not finished yet...", "status": "failed"})
CRASHED = said("completed", status="failed", error="Worker crashed", output=None, metrics={})


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
