"""Predictions through the real Cog runtime: broken off, cancelled, and the same tokens as ever afterwards."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from anyio.from_thread import start_blocking_portal

from cogsmith.gateway.models import describe
from cogsmith.gateway.predictions import Predictions
from cogsmith.gateway.worker import Worker

from ..e2e.conftest import build_tiny

pytestmark = pytest.mark.slow

PROMPT = [7, 11, 13]
NUM_TOKENS = 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A work directory of a tiny random model, and its likeliest continuation of the prompt by plain transformers."""
    model, folder = build_tiny(tmp_path_factory.mktemp("tiny"), concurrency=4)
    with torch.no_grad():
        ids = model.generate(torch.tensor([PROMPT]), max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0)
    return folder, ids[0, len(PROMPT) :].tolist()


class Talk:
    """Predictions on a worker of the tiny model."""

    def __init__(self, worker, predictions):
        self.worker = worker
        self.predictions = predictions
        self.strangers = children(os.getpid())

    def start(self, num_tokens=NUM_TOKENS):
        batch = [["GENERATE", {"model": "m", "prompt": PROMPT, "stream_id": 1, "max_tokens": num_tokens}]]
        return self.predictions.create(self.worker, {"ops_batch_json": json.dumps(batch)}, model_ref="me/tiny")

    def kill(self, victim):
        """Kill Cog's server, or the process in which it runs the model."""
        (server,) = children(os.getpid()) - self.strangers
        (child,) = children(server)
        os.kill(server if victim == "server" else child, signal.SIGKILL)


def children(pid):
    """Ids of a process's children."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for thread in threads for child in (thread / "children").read_text().split()}


@contextlib.asynccontextmanager
async def talking(folder):
    worker = Worker(describe(folder))
    try:
        async with Predictions() as predictions:
            yield Talk(worker, predictions)
    finally:
        await worker.stop()


@pytest.fixture(scope="module")
def talk(tiny):
    """Calls `conversation(local)` with the same worker for all tests; returns what it returns."""
    folder, _ = tiny
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(talking(folder)) as local:

        async def bounded(conversation):
            async with asyncio.timeout(120):
                return await conversation(local)

        yield lambda conversation: portal.call(bounded, conversation)


@pytest.fixture
def truth(tiny):
    return tiny[1]


def tokens(prediction):
    """The tokens of its output, whose chunks are whole lines."""
    assert all(chunk.endswith("\n") for chunk in prediction.output)
    return [json.loads(line.partition(" ")[2])["token"] for line in "".join(prediction.output).splitlines()]


async def first_output(prediction):
    await anext(aiter(prediction.chunks_from()))


def test_every_token_is_the_plain_models_however_many_run(talk, truth):
    async def conversation(local):
        made = [local.start() for _ in range(30)]
        await asyncio.gather(*(prediction.wait() for prediction in made))
        return made

    for prediction in talk(conversation):
        assert (prediction.status, prediction.error) == ("succeeded", None)
        assert tokens(prediction) == truth
        assert prediction.metrics["predict_time"] <= prediction.metrics["total_time"]
        assert not Path("/tmp/coglet/predictions", prediction.id).exists()


@pytest.mark.parametrize("victim", ["server", "model"])
def test_a_crash_costs_no_token_of_what_ran_or_waited(talk, truth, victim):
    async def conversation(local):
        seen = [local.start() for _ in range(4)]  # all slots
        waiting = [local.start() for _ in range(4)]
        await asyncio.gather(*map(first_output, seen))
        local.kill(victim)
        await asyncio.gather(*(prediction.wait() for prediction in [*seen, *waiting]))
        return seen, waiting

    seen, waiting = talk(conversation)
    assert [(prediction.status, prediction.error) for prediction in seen] == [("succeeded", None)] * 4
    assert [tokens(prediction) for prediction in [*seen, *waiting]] == [truth] * 8


def test_a_cancelled_prediction_frees_its_slot(talk, truth):
    async def conversation(local):
        endless = [local.start(8000) for _ in range(4)]
        await asyncio.gather(*map(first_output, endless))
        next_one = local.start()
        for prediction in endless:
            local.predictions.cancel(prediction.id)
        await asyncio.wait_for(next_one.wait(), 30)
        return endless, next_one

    endless, next_one = talk(conversation)
    assert {prediction.status for prediction in endless} == {"canceled"}
    assert all(len(tokens(prediction)) < 8000 for prediction in endless)
    assert tokens(next_one) == truth
