"""LMTP at a WebSocket: what a client sends and gets, before a stand-in for the model's Cog server."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cogsmith.gateway.app import create_app
from cogsmith.gateway.models import Models, ServedModel
from cogsmith.gateway.predictions import PredictionLimits, Predictions
from cogsmith.gateway.websocket import LmtpRoutes

from .stand_in import SCHEMA, Cog, ElsewhereWorker, said, serving, until

TOKEN = {"token": 5, "stream_id": 1, "logprob": -1.5, "finish_reason": None, "top_logprobs": {"5": -1.5}}


def line(verb, **payload):
    return f"{verb} {json.dumps(payload)}\n"


class Model:
    """A model that says what it is told to, in chunks of output; `asked` are the batches it was sent."""

    def __init__(self, *chunks, status="succeeded", error=None, hold=False):
        self.chunks = chunks
        self.status = status
        self.error = error
        self.hold = hold
        self.asked = []

    async def plan(self, inputs, cancelled):
        self.asked.append(inputs["ops_batch_json"])
        for index, chunk in enumerate(self.chunks):
            yield said("output", chunk=chunk, index=index)
        if self.hold:
            await cancelled.wait()
        yield said("completed", status=self.status, error=self.error, metrics={})


@contextlib.asynccontextmanager
async def sockets(limits=None, **models):
    """A gateway before stand-ins; gives the URL of its sockets and the stand-ins' servers."""
    async with contextlib.AsyncExitStack() as stack:
        cogs, workers = [], []
        for name, model in models.items():
            cog = Cog()
            cog.say_chunks = model.plan
            url = await stack.enter_async_context(serving(cog.app))
            served = ServedModel(name, Path("nowhere"), name, datetime.now(UTC), 4, SCHEMA, "")
            cogs.append(cog)
            workers.append(ElsewhereWorker(served, url))
        predictions, served = Predictions(limits), Models(workers)
        app = create_app(served, predictions, root_routes=LmtpRoutes(served, predictions).routes())
        gateway = await stack.enter_async_context(serving(app))
        yield gateway.replace("http", "ws"), *cogs


def talk(model, *texts, count, path="/", **options):
    """Send texts to a gateway with one model; return the first `count` texts of the answer."""

    async def body():
        async with sockets(tiny=model) as (url, _), connect(url + path, **options) as socket:
            for text in texts:
                await socket.send(text)
            return [await asyncio.wait_for(socket.recv(), 10) for _ in range(count)]

    return asyncio.run(body())


def test_an_operation_becomes_a_batch_of_one_and_lines_become_lists():
    model = Model(line("TOKEN", **TOKEN) + line("TOKEN", **TOKEN | {"finish_reason": "stop"}))
    (answer,) = talk(model, 'GENERATE {"stream_id": 1, "prompt": [1, 2]}', count=1)
    assert [json.loads(batch) for batch in model.asked] == [[["GENERATE", {"stream_id": 1, "prompt": [1, 2]}]]]
    verb, items = answer.split(" ", 1)
    assert (verb, json.loads(items)) == ("TOKEN", [TOKEN, TOKEN | {"finish_reason": "stop"}])


def test_a_batch_is_passed_on_as_it_is_and_each_verb_gets_its_own_text():
    batch = '[["MODEL_INFO", {"stream_id": 1}], ["SCORE", {"stream_id": 2, "prompt": [1], "scored": [5]}]]'
    scored = {"token": 5, "stream_id": 2, "logprob": -1.0, "finish_reason": "stop"}
    model = Model(line("MSG", stream_id=1, model_info={"a": 1}) + line("TOKEN", **scored))
    answers = talk(model, batch, count=2)
    assert model.asked == [batch]
    assert answers == [f"MSG [{json.dumps({'stream_id': 1, 'model_info': {'a': 1}})}]", f"TOKEN [{json.dumps(scored)}]"]


def test_the_text_of_a_payload_is_not_rewritten():
    """Numbers and escapes come through to the last digit."""
    payload = '{"stream_id": 1, "model_info": {"text": "\\u00e4\\n", "number": 0.10000000000000000555}}'
    (answer,) = talk(Model(f"MSG {payload}\n"), 'MODEL_INFO {"stream_id": 1}', count=1)
    assert answer == f"MSG [{payload}]"


def test_a_stream_that_ends_without_a_reason_goes_on_where_it_was():
    """LMQL 0.7.3 would wait for ever."""
    model = Model(line("TOKEN", **TOKEN))
    texts = talk(model, 'GENERATE {"stream_id": 1, "prompt": [1], "max_tokens": 3}', count=3)
    assert texts == [f"TOKEN [{json.dumps(TOKEN)}]"] * 3
    asked = [json.loads(batch)[0][1] for batch in model.asked[:3]]
    assert [(one["prompt"], one["max_tokens"]) for one in asked] == [([1], 3), ([1, 5], 2), ([1, 5, 5], 1)]


def test_a_stream_that_cannot_go_on_is_ended_with_an_error():
    text = 'GENERATE {"stream_id": 1, "prompt": [1], "presence_penalty": 0.5}'
    _, answer = talk(Model(line("TOKEN", **TOKEN)), text, count=2)
    (item,) = json.loads(answer.removeprefix("TOKEN "))
    assert item["stream_id"] == 1
    assert "ended this stream early" in item["error"]


@pytest.mark.parametrize(
    "late",
    [
        Model(*[line("TOKEN", **TOKEN)] * 6),
        Model(*[line("TOKEN", **TOKEN)] * 6, status="failed", error="gone"),
        Model(line("TOKEN", **TOKEN) * 6 + line("TOKEN", stream_id=1, error="gone")),
    ],
    ids=["broken off", "failed", "error item"],
)
def test_an_error_too_late_for_lmql_ends_its_stream_with_the_last_token(late):
    """LMQL waits for ever on an error after four tokens; after "length" it asks for the rest, and is told then."""
    text = 'GENERATE {"stream_id": 1, "prompt": [1], "presence_penalty": 0.5}'
    texts = talk(late, text, "nonsense", count=2 if len(late.chunks) == 1 else 7)
    items = [item for text in texts if text.startswith("TOKEN") for item in json.loads(text.removeprefix("TOKEN "))]
    assert items == [TOKEN] * 5 + [TOKEN | {"finish_reason": "length"}]


def test_tokens_that_wait_for_the_next_one_come_in_their_order():
    tokens = [TOKEN | {"token": i} for i in range(9)]
    tokens[-1]["finish_reason"] = "length"
    model = Model(*(line("TOKEN", **token) for token in tokens))
    texts = talk(model, 'GENERATE {"stream_id": 1, "prompt": [1]}', count=8)
    assert [item for text in texts for item in json.loads(text.removeprefix("TOKEN "))] == tokens


@pytest.mark.parametrize(
    ("operation", "verb", "extra"),
    [
        (["GENERATE", {"stream_id": 3, "prompt": [1]}], "TOKEN", {}),
        (["SCORE", {"stream_id": 3, "prompt": [1], "scored": [2]}], "TOKEN", {}),
        (["MODEL_INFO", {"stream_id": 3}], "MSG", {}),
        (["GENERATE", {"lmtp": "1.1", "stream_id": 3, "prompt": [1]}], "END", {"finish_reason": "error"}),
    ],
)
def test_a_prediction_that_fails_ends_its_streams_in_the_form_they_know(operation, verb, extra):
    model = Model(status="failed", error="out of memory")
    (answer,) = talk(model, json.dumps([operation]), count=1)
    said_verb, items = answer.split(" ", 1)
    (item,) = json.loads(items)
    assert said_verb == verb
    assert "out of memory" in item.pop("error")
    assert item == {"stream_id": 3, **extra}


def test_a_branch_that_ended_does_not_end_its_stream():
    """Of two branches one has ended when the prediction fails: the stream's end is still to be told."""
    ended = line("END", stream_id=1, index=0, finish_reason="stop")
    operation = '[["GENERATE", {"lmtp": "1.1", "stream_id": 1, "prompt": [1], "n": 2}]]'
    _, answer = talk(Model(ended, status="failed", error="gone"), operation, count=2)
    assert json.loads(answer.removeprefix("END "))[0].get("index") is None


def test_nothing_is_added_to_streams_that_ended_well():
    done = line("TOKEN", **TOKEN | {"finish_reason": "length"}) + line(
        "END", stream_id=2, index=0, finish_reason="stop"
    )
    batch = (
        '[["GENERATE", {"stream_id": 1, "prompt": [1]}], ["GENERATE", {"lmtp": "1.1", "stream_id": 2, "prompt": []}]]'
    )
    answers = talk(Model(done), batch, "nonsense", count=3)
    assert sorted(answer.split(" ")[0] for answer in answers) == ["END", "MSG", "TOKEN"]


@pytest.mark.parametrize(
    "text", ["", "hello", "GENERATE", "GENERATE {", "[1, ", b"bytes", "[", "GENERATE {} {}", "1" * 99]
)
def test_nonsense_is_answered_and_the_connection_lives(text):
    model = Model(line("TOKEN", **TOKEN | {"finish_reason": "stop"}))
    first, second = talk(model, text, 'GENERATE {"stream_id": 1, "prompt": [1]}', count=2)
    if first.startswith("TOKEN"):
        first, second = second, first
    (item,) = json.loads(first.removeprefix("MSG "))
    assert item["stream_id"] is None
    assert "send VERB {...}" in item["error"]
    assert second.startswith("TOKEN")


def test_leaving_cancels_what_was_asked_for():
    model = Model(line("TOKEN", **TOKEN), hold=True, status="canceled")

    async def body():
        async with sockets(tiny=model) as (url, cog):
            async with connect(url) as socket:
                for stream_id in (1, 2, 3):
                    await socket.send(f'GENERATE {{"stream_id": {stream_id}, "prompt": [1]}}')
                    await asyncio.wait_for(socket.recv(), 10)
                assert len(cog.running) == 3
            await until(lambda: not cog.running)

    asyncio.run(body())


def test_one_client_cannot_have_more_than_its_share_at_once():
    """Of 300 texts 256 are taken; the others are read when there is room, and none is lost."""
    model = Model(line("MSG", stream_id=1, model_info={}))

    async def body():
        async with sockets(tiny=model) as (url, cog), connect(url) as socket:
            for _ in range(300):
                await socket.send('MODEL_INFO {"stream_id": 1}')
            answers = [await asyncio.wait_for(socket.recv(), 30) for _ in range(300)]
            return answers, cog.most_running

    answers, most_running = asyncio.run(body())
    assert len(answers) == 300
    assert most_running <= 4


def test_each_model_has_a_socket_and_the_first_is_the_default():
    async def ask(url):
        async with connect(url) as socket:
            await socket.send('MODEL_INFO {"stream_id": 1}')
            return json.loads((await asyncio.wait_for(socket.recv(), 10)).removeprefix("MSG "))[0]["model_info"]

    async def body():
        one = Model(line("MSG", stream_id=1, model_info="one"))
        two = Model(line("MSG", stream_id=1, model_info="two"))
        async with sockets(one=one, two=two) as (url, *_):
            answers = [await ask(f"{url}/"), await ask(f"{url}/two"), await ask(f"{url}/ONE")]
            with pytest.raises(InvalidStatus) as refused:
                await ask(f"{url}/three")
            return answers, refused.value.response

    answers, refusal = asyncio.run(body())
    assert answers == ["one", "two", "one"]
    assert refusal.status_code == 404
    assert "use one of: one, two" in json.loads(refusal.body)["detail"]


@pytest.mark.parametrize(("origin", "enters"), [(None, True), ("own", True), ("http://evil.example", False)])
def test_other_pages_scripts_may_not_open_it(origin, enters):
    async def body():
        async with sockets(tiny=Model()) as (url, _):
            own = url.replace("ws", "http", 1) if origin == "own" else origin
            async with connect(url, origin=own):
                return

    if enters:
        asyncio.run(body())
    else:
        with pytest.raises(InvalidStatus, match="403"):
            asyncio.run(body())


def test_without_an_upgrade_it_says_what_it_is():
    async def body():
        async with sockets(tiny=Model()) as (url, _), httpx2.AsyncClient(trust_env=False) as http:
            return url, (await http.get(url.replace("ws", "http", 1) + "/")).json()

    url, page = asyncio.run(body())
    assert page["lmtp"] == url
    assert page["models"] == {"tiny": "stopped"}


def test_a_full_queue_is_said_on_each_stream():
    async def body():
        async with sockets(PredictionLimits(waiting=0), tiny=Model()) as (url, _), connect(url) as socket:
            await socket.send('[["MODEL_INFO", {"stream_id": 1}], ["GENERATE", {"stream_id": 2, "prompt": [1]}]]')
            return [await asyncio.wait_for(socket.recv(), 10) for _ in range(2)]

    for answer, verb, stream_id in zip(asyncio.run(body()), ("MSG", "TOKEN"), (1, 2), strict=True):
        (item,) = json.loads(answer.removeprefix(f"{verb} "))
        assert item["stream_id"] == stream_id
        assert "waiting already" in item["error"]
