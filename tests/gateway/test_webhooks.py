"""Webhooks: what a receiver gets, when, and whether it can trust it."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from cogsmith.gateway.prediction import Prediction, Webhook
from cogsmith.gateway.webhooks import Webhooks

from .stand_in import serving, until

ALL = frozenset({"start", "output", "logs", "completed"})


class Receiver:
    """Keeps what it is sent. `answers` are its first status codes; later ones are 200."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.received = []
        self.app = Starlette(routes=[Route("/hook", self._take, methods=["POST"])])

    async def _take(self, request):
        self.received.append((dict(request.headers), await request.body()))
        return Response(status_code=self.answers.pop(0) if self.answers else 200)

    @property
    def bodies(self):
        return [json.loads(body) for _, body in self.received]


@contextlib.asynccontextmanager
async def told(receiver, changes=ALL):
    """A prediction whose webhook is the receiver's, and the webhooks."""
    async with serving(receiver.app) as url, Webhooks() as webhooks:
        hook = Webhook(f"{url}/hook", frozenset(changes), "http://gateway:1")
        yield Prediction(1, "me/tiny", "v" * 64, {"x": 1}, 10, webhooks.notice, webhook=hook), webhooks


def test_start_output_and_end_are_told_with_the_prediction_as_it_was():
    receiver = Receiver()

    async def body():
        async with told(receiver) as (prediction, _):
            prediction.begin()
            await until(lambda: len(receiver.received) == 1)
            prediction.write("a")
            await until(lambda: len(receiver.received) == 2)
            prediction.end("succeeded")
            await until(lambda: len(receiver.received) == 3)

    asyncio.run(body())
    assert [body["status"] for body in receiver.bodies] == ["processing", "processing", "succeeded"]
    assert [body["output"] for body in receiver.bodies] == [None, ["a"], ["a"]]
    assert receiver.bodies[2]["urls"]["get"].startswith("http://gateway:1/v1/predictions/")


def test_messages_are_signed_by_the_standard():
    """Checked by the standard's text: HMAC-SHA256 over id.timestamp.body with the secret's bytes."""
    receiver = Receiver()

    async def body():
        async with told(receiver) as (prediction, webhooks):
            prediction.end("failed", error="näh")
            await until(lambda: receiver.received)
            return webhooks.secret

    secret = asyncio.run(body())
    assert secret.startswith("whsec_")
    headers, content = receiver.received[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + content
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"


def test_output_is_told_of_at_most_twice_a_second_and_the_end_does_not_wait():
    receiver = Receiver()

    async def body():
        async with told(receiver, {"output", "logs", "completed"}) as (prediction, _):
            prediction.begin()
            for number in range(60):
                prediction.write(str(number))
                prediction.log(str(number))
                await asyncio.sleep(0.01)
            prediction.end("succeeded")
            ended = asyncio.get_running_loop().time()
            await until(lambda: receiver.bodies and receiver.bodies[-1]["status"] == "succeeded")
            return asyncio.get_running_loop().time() - ended

    asyncio.run(body())
    unfinished = [body for body in receiver.bodies if body["status"] == "processing"]
    assert 1 <= len(unfinished) <= 3
    assert receiver.bodies[-1]["output"] == [str(number) for number in range(60)]


@pytest.mark.parametrize(
    ("changes", "statuses"),
    [
        ({"completed"}, ["succeeded"]),
        ({"start"}, ["processing"]),
        ({"start", "completed"}, ["processing", "succeeded"]),
        ({"logs"}, ["processing"]),
        (set(), []),
    ],
)
def test_only_what_was_asked_for_is_told(changes, statuses):
    receiver = Receiver()

    async def body():
        async with told(receiver, changes) as (prediction, _):
            prediction.begin()
            await asyncio.sleep(0.1)
            prediction.write("a")
            await asyncio.sleep(0.1)
            prediction.log("b")
            await asyncio.sleep(0.1)
            prediction.end("succeeded")

    asyncio.run(body())
    assert [body["status"] for body in receiver.bodies] == statuses


def test_the_end_is_told_until_it_is_taken_and_as_the_same_message():
    receiver = Receiver(500, 503)

    async def body():
        async with told(receiver) as (prediction, _):
            prediction.end("canceled")
            await until(lambda: len(receiver.received) == 3, 20)

    asyncio.run(body())
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert len({body for _, body in receiver.received}) == 1


def test_output_that_is_not_taken_is_not_sent_again():
    receiver = Receiver(500)

    async def body():
        async with told(receiver, {"output"}) as (prediction, _):
            prediction.write("a")
            await asyncio.sleep(1.2)
            prediction.end("succeeded")

    asyncio.run(body())
    assert len(receiver.received) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/hook", "nonsense", "http://[", "ftp://x/y"])
def test_a_receiver_that_cannot_be_reached_harms_nobody(url, caplog):
    async def body():
        async with Webhooks() as webhooks:
            hook = Webhook(url, frozenset({"output"}), "http://gateway:1")
            prediction = Prediction(1, "me/tiny", "v", {}, 1, webhooks.notice, webhook=hook)
            prediction.write("a")
            await until(lambda: "webhook of prediction" in caplog.text)
            prediction.end("succeeded")

    asyncio.run(body())


def test_predictions_without_a_webhook_cost_nothing():
    async def body():
        async with Webhooks() as webhooks:
            before = len(asyncio.all_tasks())
            prediction = Prediction(1, "me/tiny", "v", {}, 1, webhooks.notice)
            prediction.write("a")
            prediction.end("succeeded")
            return len(asyncio.all_tasks()) - before

    assert asyncio.run(body()) == 0
