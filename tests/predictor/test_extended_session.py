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

from ..engine.models import byte_tokenizer, engine_over, plain_logprobs, tiny_llama
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


def greedy(model, prompt, count):
    """What the plain model continues with."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(plain_logprobs(model, ids)[-1].argmax().item())
    return ids[len(prompt) :]


def test_each_branch_is_whole_and_ends_once_with_what_it_took(model, engine):
    replies = replies_of(engine, generate(1, max_tokens=5, n=3, top_logprobs=2), generate(2, (9,), max_tokens=2))
    expected = greedy(model, (1, 2, 3), 5)
    plain = plain_logprobs(model, [1, 2, 3, *expected])[2:]
    for index in range(3):
        tokens, end = branch(replies, 1, index)
        assert [token.token for token in tokens] == expected
        assert [token.logprob for token in tokens] == pytest.approx(
            [row[token].item() for row, token in zip(plain, expected, strict=False)], abs=1e-4
        )
        assert [token.finish_reason for token in tokens] == [None] * 4 + ["length"]
        assert all(len(token.top_logprobs) == 2 and token.logprobs is None for token in tokens)
        assert (end.finish_reason, end.stop, end.error) == ("length", None, None)
        assert end.usage == lmtp.Usage(prompt_tokens=3, tokens=5)
        assert 0 < end.timing.first_token_ms <= end.timing.total_ms < 60_000
    assert branch(replies, 2)[1].usage == lmtp.Usage(prompt_tokens=1, tokens=2)
    assert len(replies) == 3 * 6 + 3


def drawn(replies, stream_id, index):
    return [token.token for token in branch(replies, stream_id, index)[0]]


def test_draws_are_repeatable_and_branch_i_draws_with_seed_plus_i(engine):
    hot = {"temperature": 3.0, "max_tokens": 12}
    together = replies_of(engine, generate(1, n=4, seed=7, **hot), generate(2, (5,), n=3, **hot))
    alone = replies_of(engine, *(generate(i, seed=7 + i, **hot) for i in range(4)))
    branches = [drawn(together, 1, index) for index in range(4)]
    assert branches == [drawn(alone, i, 0) for i in range(4)]
    assert len({tuple(tokens) for tokens in branches}) == 4


def test_options_are_scored_each_after_the_prompt(model, engine):
    options = ((7,), (8, 9, 10), (11, 12))
    replies = replies_of(
        engine, lmtp.ExtendedScore(prompt=(1, 2), options=options, stream_id=1, top_logprobs=1, logprob_ids=(3,))
    )
    for index, option in enumerate(options):
        plain = plain_logprobs(model, [1, 2, *option])[1:]
        tokens, end = branch(replies, 1, index)
        assert [token.token for token in tokens] == list(option)
        for token, row in zip(tokens, plain, strict=False):
            assert token.logprob == pytest.approx(row[token.token].item(), abs=1e-4)
            assert token.top_logprobs.keys() == {row.argmax().item(), token.token}
            assert token.logprobs == pytest.approx({3: row[3].item()}, abs=1e-4)
        assert (end.finish_reason, end.usage) == ("stop", lmtp.Usage(prompt_tokens=2, tokens=len(option)))


def test_scores_list_nothing_that_was_not_asked_for(engine):
    tokens, _ = branch(replies_of(engine, lmtp.ExtendedScore(prompt=(1,), options=((2, 3),), stream_id=1)), 1)
    assert {(token.top_logprobs, token.logprobs) for token in tokens} == {(None, None)}


def test_an_option_that_cannot_be_scored_ends_its_own_branch(engine):
    replies = replies_of(engine, lmtp.ExtendedScore(prompt=(1,), options=((2,), (3, 999)), stream_id=1))
    assert branch(replies, 1, 0)[1].finish_reason == "stop"
    tokens, end = branch(replies, 1, 1)
    assert (tokens, end.finish_reason) == ([], "error")
    assert "scored[1] is 999" in end.error


def test_the_token_that_completes_a_stop_is_sent_and_is_the_last(model, engine, tokenizer):
    expected = greedy(model, (1, 2, 3), 9)
    for stop in (tuple(expected[3:5]), tokenizer.decode(expected[3:5])):
        replies = replies_of(
            engine, generate(1, max_tokens=9, stop=("never", stop), n=2), generate(2, max_tokens=9), tokenizer=tokenizer
        )
        for index in range(2):
            tokens, end = branch(replies, 1, index)
            assert [token.token for token in tokens] == expected[:5]
            assert [token.finish_reason for token in tokens] == [None] * 4 + ["stop_sequence"]
            assert (end.finish_reason, end.stop) == ("stop_sequence", stop)
            assert end.usage.tokens == 5
        assert drawn(replies, 2, 0) == expected


def test_the_first_tokens_complete_no_stop(engine, tokenizer):
    (letter,) = tokenizer.encode("A")
    only = lmtp.pack_mask([letter])
    for stop, least, count in [(("AA",), 0, 2), (("AA",), 3, 4), (((letter,),), 2, 3), ((), 2, 6)]:
        operation = generate(1, max_tokens=6, allow=only, stop=stop, min_tokens=least)
        tokens, _ = branch(replies_of(engine, operation, tokenizer=tokenizer), 1)
        assert len(tokens) == count


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


def test_a_deadline_ends_a_running_generation(engine):
    """A thousandth of a second is over before 500 tokens are."""
    replies = replies_of(engine, generate(1, max_tokens=500, deadline_ms=1), generate(2, max_tokens=3))
    tokens, end = branch(replies, 1)
    assert end.finish_reason == "deadline"
    assert len(tokens) == end.usage.tokens < 500
    assert branch(replies, 2)[1].finish_reason == "length"


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


def test_an_unknown_key_cancels_nothing(engine):
    (answer,) = replies_of(engine, lmtp.Cancel(cancel_key="nobody", stream_id=1))
    assert answer.cancelled == 0


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


def test_a_mask_comes_through_the_wire(model, engine):
    half = list(range(0, 256, 2))
    replies = replies_of(
        engine, generate(1, allow=lmtp.pack_mask(half), max_tokens=8, top_logprobs=256, logprob_ids=(0, 1))
    )
    tokens, _ = branch(replies, 1)
    ids = [1, 2, 3]
    for token in tokens:
        row = plain_logprobs(model, ids)[-1]
        truth = torch.log_softmax(row[half], dim=-1)
        assert token.top_logprobs == pytest.approx(dict(zip(half, truth.tolist(), strict=True)), abs=1e-4)
        assert token.token == half[truth.argmax()]
        assert token.logprobs.keys() == {0}
        ids.append(token.token)


def test_a_mask_outside_the_vocabulary_is_refused(engine):
    (end,) = replies_of(engine, generate(1, allow=lmtp.pack_mask([256, 300])))
    assert "allow holds no id of this model's vocabulary" in end.error


def test_what_a_batch_shares_makes_no_difference(engine):
    prompt = tuple(range(1, 60))
    operations = [generate(i, (*prompt, i), max_tokens=4, allow=lmtp.pack_mask(range(0, 250, 3))) for i in range(3)]
    assert "DEFINE" in lmtp.serialize_batch(operations)
    together = replies_of(engine, *operations)
    for i, operation in enumerate(operations):
        assert drawn(replies_of(engine, operation), i, 0) == drawn(together, i, 0)


def test_a_1_0_stream_is_told_the_same_beside_streams_of_1_1(engine):
    plain = lmtp.Generate(prompt=(1, 2, 3), stream_id=1, max_tokens=6, top_logprobs=3)
    score = lmtp.Score(prompt=(1,), scored=(2, 3), stream_id=2)
    alone = lines_of(engine, plain, score)
    mixed = lines_of(engine, plain, generate(5, n=2), score, generate(6, (4,), stop=((1,),)))
    assert {line.split(" ", 1)[0] for line in alone} == {"TOKEN"}

    def told(lines, stream_id):
        payloads = [json.loads(line.split(" ", 1)[1]) for line in lines]
        return [[*payload, payload["token"]] for payload in payloads if payload["stream_id"] == stream_id]

    for stream_id in (1, 2):
        assert told(mixed, stream_id) == told(alone, stream_id)
        assert not any("index" in fields for fields in told(mixed, stream_id))


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
    assert {"allow", "n", "options", "stop", "cancel", "deadline_ms"} <= set(told["features"])
    assert told["versions"]["torch"] == torch.__version__
    assert told["tokenizer"].startswith("sha256:")
    assert (told["vocab_size"], told["eos_ids"], told["bos_id"]) == (256, [], None)
