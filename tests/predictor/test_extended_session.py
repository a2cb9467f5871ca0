"""LMTP 1.1 predictions on a real engine with a tiny model of bytes, against plain forward passes."""

import base64
import json
import threading
import time

import pytest
import torch

from cogsmith import lmtp
from cogsmith.engine.request import FailedEvent, TokenEvent
from cogsmith.manifest import Limits
from cogsmith.predictor.mailbox import Cancelled, Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.registry import Registry
from cogsmith.predictor.session import Session

from ..engine.models import byte_tokenizer, engine_over, tiny_llama
from .scripted import ScriptedEngine


@pytest.fixture(scope="module")
def model():
    return tiny_llama(vocab_size=256, max_position_embeddings=512)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def engine(model, tokenizer):
    engine = engine_over(model, tokenizer, max_batch_size=8)
    yield engine
    engine.close()


def session(engine, *, tokenizer=None, limits=Limits(), mailbox=None, registry=None):  # noqa: B008
    mailbox = mailbox or Mailbox(60)
    registry = registry if registry is not None else Registry()
    meter = Meter(lambda name, value: None)
    return Session(engine, limits, mailbox, meter, tokenizer=tokenizer, registry=registry)


def lines_of(engine, *operations, **settings):
    """All answers to a batch of messages, or of raw pairs, in order of arrival."""
    text = json.dumps(operations) if isinstance(operations[0], list) else lmtp.serialize_batch(operations)
    return "".join(session(engine, **settings).run(text)).splitlines()


def replies_of(engine, *operations, **settings):
    return [reply for line in lines_of(engine, *operations, **settings) for reply in lmtp.parse_line(line)]


def branch(replies, stream_id, index=0):
    """The tokens of a branch, and its END, which must be the one and the last of it."""
    *tokens, end = [
        reply for reply in replies if reply.stream_id == stream_id and getattr(reply, "index", None) == index
    ]
    assert isinstance(end, lmtp.End)
    assert all(isinstance(token, lmtp.ExtendedToken) for token in tokens)
    return tokens, end


def generate(stream_id, prompt=(1, 2, 3), **fields):
    return lmtp.ExtendedGenerate(prompt=prompt, stream_id=stream_id, **fields)


def test_scores_list_nothing_that_was_not_asked_for(engine):
    tokens, _ = branch(replies_of(engine, lmtp.ExtendedScore(prompt=(1,), options=((2, 3),), stream_id=1)), 1)
    assert {(token.top_logprobs, token.logprobs) for token in tokens} == {(None, None)}


def test_a_stopped_branch_is_cancelled_in_the_engine():
    engine = ScriptedEngine(TokenEvent(7, -1.0), TokenEvent(7, -1.0), TokenEvent(8, -1.0))
    tokens, end = branch(replies_of(engine, generate(1, stop=((7, 7),))), 1)
    assert ([token.token for token in tokens], end.stop) == ([7, 7], (7, 7))
    assert engine.cancelled == 1


def test_a_stop_that_comes_with_the_last_token_is_the_reason():
    engine = ScriptedEngine(TokenEvent(7, -1.0, finish_reason="length"))
    tokens, end = branch(replies_of(engine, generate(1, stop=((7,),))), 1)
    assert (tokens[0].finish_reason, end.finish_reason) == ("stop_sequence", "stop_sequence")


def test_a_text_to_stop_at_needs_a_tokenizer(engine):
    end, *others = replies_of(engine, generate(1, stop=((7,), "x"), n=3), generate(2, max_tokens=1))
    assert (end.stream_id, end.index, end.finish_reason) == (1, None, "error")
    assert "without a tokenizer" in end.error
    assert branch(others, 2)[1].finish_reason == "length"


def test_an_operations_deadline_ends_its_branches_and_no_other():
    engine = ScriptedEngine(TokenEvent(1, -1.0))
    started = time.monotonic()
    operations = (generate(1, n=2, deadline_ms=60), generate(2, deadline_ms=150), generate(3))
    replies = replies_of(engine, *operations, mailbox=Mailbox(0.3))
    assert time.monotonic() - started >= 0.3
    for stream_id, index, after in [(1, 0, 60), (1, 1, 60), (2, 0, 150), (3, 0, 300)]:
        tokens, end = branch(replies, stream_id, index)
        assert (len(tokens), end.finish_reason, end.error) == (1, "deadline", None)
        assert end.timing.total_ms >= after
    assert engine.cancelled == 4


def test_a_failure_is_told_however_late():
    engine = ScriptedEngine(*[TokenEvent(1, -1.0)] * 9, FailedEvent("the engine failed"))
    tokens, end = branch(replies_of(engine, generate(1)), 1)
    assert (len(tokens), end.finish_reason, end.error) == (9, "error", "the engine failed")


def test_a_refusal_ends_each_branch():
    engine = engine_over(tiny_llama(), max_queue=1, max_batch_size=1)
    try:
        for branches, words in [(2, "the prompt is empty"), (3, "3 branches, more than 2")]:
            limits = Limits(max_queue=1, max_batch_size=1)
            ends = replies_of(engine, generate(1, (), n=branches), limits=limits)
            assert {end.finish_reason for end in ends} == {"error"}
            assert all(words in end.error for end in ends)
            assert len(ends) == (2 if branches == 2 else 1)
    finally:
        engine.close()


class Prediction(threading.Thread):
    """A prediction on a thread of its own."""

    def __init__(self, engine, registry, *operations, **settings):
        super().__init__(daemon=True)
        self.lines = []
        self._started_tokens = threading.Event()
        self._chunks = session(engine, registry=registry, **settings).run(lmtp.serialize_batch(operations))
        self.start()

    def run(self):
        for chunk in self._chunks:
            self.lines += chunk.splitlines()
            self._started_tokens.set()

    def wait_for_tokens(self):
        assert self._started_tokens.wait(30)

    def replies(self):
        self.join(60)
        assert not self.is_alive()
        return [reply for line in self.lines for reply in lmtp.parse_line(line)]


def test_cancel_ends_the_branches_of_a_key_in_their_own_predictions(engine):
    registry = Registry()
    running = [
        Prediction(
            engine,
            registry,
            generate(1, max_tokens=400, n=2, cancel_key="k"),
            generate(2, max_tokens=40, cancel_key="l"),
        )
        for _ in range(2)
    ]
    for prediction in running:
        prediction.wait_for_tokens()
    (answer,) = replies_of(engine, lmtp.Cancel(cancel_key="k", stream_id=9), registry=registry)
    assert answer == lmtp.Cancelled(stream_id=9, cancelled=4)
    for prediction in running:
        replies = prediction.replies()
        for index in range(2):
            tokens, end = branch(replies, 1, index)
            assert end.finish_reason == "cancelled"
            assert len(tokens) == end.usage.tokens < 400
        assert len(branch(replies, 2)[0]) == 40
    assert len(registry) == 0


def test_cancel_reaches_what_the_same_batch_began_before_it():
    cancel = lmtp.Cancel(cancel_key="k", stream_id=2)
    registry = Registry()
    replies = replies_of(
        ScriptedEngine(),
        generate(1, cancel_key="k"),
        cancel,
        generate(3, cancel_key="k", deadline_ms=50),
        registry=registry,
    )
    assert lmtp.Cancelled(stream_id=2, cancelled=1) in replies
    assert [branch(replies, stream_id)[1].finish_reason for stream_id in (1, 3)] == ["cancelled", "deadline"]
    assert len(registry) == 0


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_keys_vanish_with_a_prediction_that_ends_early(end):
    registry, mailbox, engine = Registry(), Mailbox(30), ScriptedEngine(TokenEvent(1, -1.0))
    chunks = session(engine, mailbox=mailbox, registry=registry).run(
        lmtp.serialize_batch([generate(1, n=3, cancel_key="k")])
    )
    next(chunks)
    assert len(registry) == 3
    if end == "close":
        chunks.close()
    else:
        mailbox.cancel()
        with pytest.raises(Cancelled):
            next(chunks)
    assert len(registry) == 0
    assert engine.cancelled == 3


def test_the_tokenizer_is_sent(engine, tokenizer):
    answer, again = replies_of(
        engine, lmtp.GetTokenizer(stream_id=1), lmtp.GetTokenizer(stream_id=2), tokenizer=tokenizer
    )
    assert isinstance(answer, lmtp.TokenizerFiles)
    assert base64.b64decode(answer.tokenizer)[:2] == b"\x1f\x8b"
    assert answer.tokenizer == again.tokenizer
    (end,) = replies_of(engine, lmtp.GetTokenizer(stream_id=1))
    assert (end.finish_reason, "without a tokenizer" in end.error) == ("error", True)


def test_model_info_says_which_versions_and_features_there_are(engine):
    (info,) = replies_of(engine, ["MODEL_INFO", {"stream_id": 1}])
    told = info.model_info
    assert told["lmtp"] == "1.1"
    assert {"allow", "constraint", "n", "options", "stop", "cancel", "deadline_ms"} <= set(told["features"])
    assert told["versions"]["torch"] == torch.__version__
    assert told["tokenizer"].startswith("sha256:")
    assert (told["vocab_size"], told["eos_ids"], told["bos_id"]) == (256, [], None)
