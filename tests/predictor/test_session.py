"""LMTP predictions on a real engine with a tiny model, and on one that fails when told to."""

import json

import pytest
import torch

from cogsmith.engine.request import FailedEvent, TokenEvent
from cogsmith.manifest import Limits
from cogsmith.predictor.mailbox import Cancelled, Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.session import Session

from ..engine.models import engine_over, tiny_llama
from .scripted import ScriptedEngine


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def engine(model):
    engine = engine_over(model, max_batch_size=4)
    yield engine
    engine.close()


def chunks_of(engine, *operations, limits=Limits(), seconds=30.0, metrics=None):  # noqa: B008
    recorded = {} if metrics is None else metrics
    session = Session(engine, limits, Mailbox(seconds), Meter(recorded.__setitem__))
    return session.run(operations[0] if isinstance(operations[0], str) else json.dumps(operations))


def items_of(engine, *operations, **settings):
    """All answers, as (verb, payload), in order of arrival."""
    lines = "".join(chunks_of(engine, *operations, **settings)).splitlines()
    return [(verb, json.loads(payload)) for verb, payload in (line.split(" ", 1) for line in lines)]


def stream(items, stream_id):
    return [payload for _, payload in items if payload["stream_id"] == stream_id]


def generate(stream_id, prompt=(1, 2, 3), **fields):
    return ["GENERATE", {"prompt": list(prompt), "stream_id": stream_id, **fields}]


def test_every_chunk_holds_whole_lines(engine):
    for chunk in chunks_of(engine, generate(1, max_tokens=5), generate(2, max_tokens=5)):
        assert chunk.endswith("\n")
        for line in chunk.splitlines():
            json.loads(line.split(" ", 1)[1])


def test_model_info_describes_the_model(engine):
    ((verb, payload),) = items_of(engine, ["MODEL_INFO", {"stream_id": 9}])
    assert (verb, payload["stream_id"]) == ("MSG", 9)
    info = payload["model_info"]
    assert (info["model"], info["vocab_size"], info["max_context"], info["layers"]) == ("tiny", 199, 128, 3)


@pytest.mark.parametrize("text", ["", "nonsense", "{}", "[]", '[["GENERATE"]', "[[1, 2]]"])
def test_what_is_no_batch_is_answered_by_one_line(engine, text):
    ((verb, payload),) = items_of(engine, text)
    assert (verb, payload["stream_id"]) == ("MSG", None)
    assert payload["error"]


def test_too_many_operations_are_refused_by_the_servers_limit(engine):
    ((_, payload),) = items_of(engine, *(generate(i) for i in range(4)), limits=Limits(max_operations=3))
    assert "3" in payload["error"]


def test_metrics_count_tokens_in_and_out_and_the_first_ones_time(engine):
    metrics = {}
    items_of(
        engine,
        generate(1, max_tokens=4),
        ["SCORE", {"prompt": [5], "scored": [6, 7], "stream_id": 2}],
        metrics=metrics,
    )
    assert metrics["input_token_count"] == 3 + 3
    assert metrics["output_token_count"] == 4 + 2
    assert 0 < metrics["time_to_first_token"] < 30


@pytest.mark.parametrize(("num_tokens", "told"), [(0, True), (3, True), (4, False), (9, False)])
def test_an_error_is_told_only_while_a_1_0_client_can_bear_it(num_tokens, told):
    """LMQL 0.7.3 hangs for ever on an error line after four tokens."""
    engine = ScriptedEngine(*[TokenEvent(1, -1.0)] * num_tokens, FailedEvent("the engine failed"))
    payloads = [payload for _, payload in items_of(engine, generate(1))]
    assert len(payloads) == num_tokens + told
    assert all(payload["finish_reason"] is None for payload in payloads[:num_tokens])
    if told:
        assert payloads[-1] == {"stream_id": 1, "error": "the engine failed"}


def test_at_the_deadline_a_silent_stream_is_told_and_cancelled():
    engine = ScriptedEngine()
    ((_, payload),) = items_of(engine, generate(1), seconds=0.05)
    assert "has had its" in payload["error"]
    assert engine.cancelled == 1


def test_a_cancelled_prediction_leaves_no_stream_running():
    engine = ScriptedEngine()
    mailbox = Mailbox(30)
    session = Session(engine, Limits(), mailbox, Meter(lambda name, value: None))
    mailbox.cancel()
    with pytest.raises(Cancelled):
        list(session.run(json.dumps([generate(1), generate(2)])))
    assert engine.cancelled == 2


def test_a_prediction_that_is_closed_early_leaves_no_stream_running():
    engine = ScriptedEngine(TokenEvent(1, -1.0))
    chunks = chunks_of(engine, generate(1), generate(2))
    next(chunks)
    assert engine.cancelled == 0
    chunks.close()
    assert engine.cancelled == 2


def test_bfloat16_logprobs_are_still_json_numbers():
    engine = engine_over(tiny_llama().to(torch.bfloat16))
    (payload,) = stream(items_of(engine, generate(1, max_tokens=1)), 1)
    assert isinstance(payload["logprob"], float)
    engine.close()
