"""Faults made on purpose: each is seen by a client as it would see the real one."""

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from cogsmith.errors import ProblemsError
from cogsmith.gateway.app import create_app
from cogsmith.gateway.chaos import FaultyAnswers, parse
from cogsmith.gateway.models import Models, ServedModel
from cogsmith.gateway.predictions import Predictions

from .stand_in import SCHEMA, VERSION, Cog, ElsewhereWorker, Gateway, serving, until

CHUNKS = [str(number) for number in range(20)]


@contextlib.asynccontextmanager
async def faulty(spec):
    """A gateway that fails as `spec` says."""
    chaos = parse(spec)
    cog = Cog()
    model = ServedModel("tiny", Path("nowhere"), VERSION, datetime.now(UTC), 4, SCHEMA, "")
    async with serving(cog.app) as cog_url:
        worker = ElsewhereWorker(model, cog_url)
        predictions = Predictions()
        predictions.subscribe(chaos.abort_some)
        app = FaultyAnswers(create_app(Models([worker]), predictions), chaos)
        async with serving(app) as url, httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False) as http:
            yield Gateway(cog, worker, predictions, http)


def statuses(spec, count):
    """How a gateway answers `count` questions after its account."""

    async def body():
        async with faulty(spec) as local:
            return [await local.http.get("/v1/account") for _ in range(count)]

    return asyncio.run(body())


def test_every_request_is_throttled_as_the_hosted_service_does_it():
    (answer,) = statuses("429=1", 1)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["detail"] == "Request was throttled. Your rate limit resets in ~1s."


@pytest.mark.parametrize("status", ["500", "502", "503", "504"])
def test_every_request_fails_with_the_status_asked_for(status):
    (answer,) = statuses(f"{status}=1", 1)
    assert answer.status_code == int(status)


def test_shares_are_kept_and_a_seed_repeats_the_choices():
    first, again, other = (
        [answer.status_code for answer in statuses(f"500=0.3,429=0.2,seed={seed}", 100)] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert 15 <= first.count(500) <= 45
    assert 8 <= first.count(429) <= 35


def test_a_failed_creation_creates_nothing():
    async def body():
        async with faulty("500=1") as local:
            answer = await local.http.post("/v1/predictions", json={"version": VERSION, "input": {"chunks": CHUNKS}})
            return answer.status_code, local.cog.attempts, list(local.predictions.newest_first())

    assert asyncio.run(body()) == (500, [], [])


def test_a_cut_stream_lacks_its_end_and_can_be_resumed_without_loss():
    async def body():
        async with faulty("cut=1,seed=3") as local:
            prediction = await local.create(CHUNKS)
            await local.ended(prediction)
            seen = []
            for _ in range(200):
                headers = {"last-event-id": seen[-1][0]} if seen else {}
                with contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
                    async with local.http.sse(prediction["urls"]["stream"], headers=headers) as source:
                        async for event in source:
                            seen.append((event.id, event.event, event.data))
                        if seen and seen[-1][1] == "done":
                            return seen
                    pytest.fail("a cut stream ended as if it were whole")
            pytest.fail("it never ended")

    seen = asyncio.run(body())
    assert [data for _, name, data in seen if name == "output"] == CHUNKS


def test_streams_that_are_not_cut_are_whole():
    async def body():
        async with faulty("429=0") as local:
            return await local.read(await local.create(CHUNKS))

    assert [data for _, name, data in asyncio.run(body()) if name == "output"] == CHUNKS


def test_an_aborted_prediction_ends_without_output_and_is_taken_from_the_model():
    async def body():
        async with faulty("aborted=1") as local:
            prediction = await local.ended(await local.create(CHUNKS, hold=True))
            await until(lambda: not local.cog.running)
            return prediction["status"], prediction["output"], await local.read(prediction)

    status, output, events = asyncio.run(body())
    assert (status, output) == ("aborted", None)
    assert [name for _, name, _ in events] == ["done"]


@pytest.mark.parametrize(
    "text", ["429=0.2,500=0.1,cut=0.1,slow=5,aborted=0.1,seed=7", " cut = 1 , slow=0.5 ", "seed=0"]
)
def test_specs_that_mean_something(text):
    parse(text)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["''"]),
        ("429", ["429 is ''"]),
        ("501=1", ["'501'"]),
        ("cut=1.1", ["cut is '1.1'"]),
        ("cut=-0.1", ["cut is '-0.1'"]),
        ("cut=nan", ["cut is 'nan'"]),
        ("slow=inf", ["slow is 'inf'"]),
        ("slow=soon", ["slow is 'soon'"]),
        ("cut=0.1,cut=0.2", ["'cut' is given twice"]),
        ("cat=1,cut=2,slow=x", ["'cat'", "cut is '2'", "slow is 'x'"]),
    ],
)
def test_specs_that_mean_nothing_are_refused_with_every_fault(text, faults):
    with pytest.raises(ProblemsError) as caught:
        parse(text)
    assert len(caught.value.problems) == len(faults)
    for problem, fault in zip(caught.value.problems, faults, strict=True):
        assert fault in str(problem)
