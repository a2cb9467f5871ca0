"""EMBED in a prediction, on a real engine over a tiny model."""

import json

import numpy
import pytest

from cogsmith import lmtp
from cogsmith.engine.request import EncodedEvent
from cogsmith.lmtp import parse_line
from cogsmith.manifest import Limits
from cogsmith.predictor.mailbox import Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.session import Session
from cogsmith.predictor.vectors import MOST_IN_A_LINE, embedded, encoded

from ..engine.encoders import ENCODERS, engine_over, plain_states, save
from ..engine.models import byte_tokenizer, tiny_llama
from ..engine.models import engine_over as token_engine_over


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A plain BERT over bytes, and the engine over the same weights."""
    folder = tmp_path_factory.mktemp("bert")
    config = ENCODERS["bert"]()
    config.vocab_size = 256
    model = save(config, folder)
    engine = engine_over(folder, max_batch_size=4)
    yield model, engine
    engine.close()


def replies(engine, *operations, tokenizer=None, metrics=None):
    session = Session(
        engine, Limits(), Mailbox(60), Meter(({} if metrics is None else metrics).__setitem__), tokenizer=tokenizer
    )
    text = "".join(session.run(lmtp.serialize_batch(operations)))
    return sorted((one for line in text.splitlines() for one in parse_line(line)), key=lambda one: one.stream_id)


def test_texts_are_encoded_by_the_model_s_tokenizer_and_counted(served):
    model, engine = served
    metrics = {}
    tokenizer = byte_tokenizer()
    (answer,) = replies(engine, lmtp.Embed(texts=("abc", "de"), stream_id=1), tokenizer=tokenizer, metrics=metrics)
    assert answer.token_ids == [tokenizer.encode("abc"), tokenizer.encode("de")]
    assert (answer.pooling, answer.normalize, metrics["input_token_count"]) == ("mean", False, 5)
    for ids, vector in zip(answer.token_ids, answer.vectors, strict=True):
        assert numpy.allclose(vector, plain_states(model, ids)[0].mean(0), atol=1e-5)


def test_layers_and_embedding(served):
    model, engine = served
    asked = lmtp.Embed(inputs=((1, 2, 3),), layers=(2, 0), embedding=True, pooling="none", stream_id=1)
    (answer,) = replies(engine, asked)
    _, hidden = plain_states(model, (1, 2, 3))
    assert (answer.vectors, answer.last_hidden_state, set(answer.layers)) == (None, None, {0, 2})
    for found, wanted in ((answer.embedding, hidden[0]), (answer.layers[0], hidden[1]), (answer.layers[2], hidden[3])):
        assert numpy.allclose(found[0], wanted, atol=1e-5 * float(wanted.abs().max()))


def test_padding_by_its_id_alone_is_on_the_right(served):
    _, engine = served
    (answer,) = replies(engine, lmtp.Embed(inputs=((1, 2, 3), (4,)), padding_id=9, stream_id=1))
    assert (answer.token_ids, answer.padding_id) == ([[1, 2, 3], [4, 9, 9]], 9)


def test_each_fault_is_its_operation_s_own(served):
    _, engine = served
    long = lmtp.Embed(inputs=((1,) * 67,), stream_id=1)
    without_tokenizer = lmtp.Embed(texts=("a",), stream_id=2)
    tokens = lmtp.ExtendedGenerate(prompt=(1,), stream_id=3)
    too_much = lmtp.Embed(inputs=((1,) * 60,) * 600, pooling="none", stream_id=4)
    good = lmtp.Embed(inputs=((1,) * 67,), truncate=True, stream_id=5)
    *faults, answer = replies(engine, long, without_tokenizer, tokens, too_much, good)
    assert [fault.finish_reason for fault in faults] == ["error"] * 4
    assert "text 0 has 67 tokens; this model takes 66 at most" in faults[0].error
    assert "came without a tokenizer" in faults[1].error
    assert "gives vectors" in faults[2].error
    assert "1152000 numbers, more than 524288" in faults[3].error
    assert answer.token_ids == [[1] * 66]


def test_a_model_that_continues_text_says_so():
    engine = token_engine_over(tiny_llama())
    try:
        info, answer = replies(engine, lmtp.ModelInfo(stream_id=1), lmtp.Embed(inputs=((1,),), stream_id=2))
    finally:
        engine.close()
    assert (info.model_info["task"], "embed" in info.model_info["features"]) == ("causal-lm", False)
    assert "continues text (task causal-lm), and gives no vectors" in answer.error


def test_cancelling_by_key_and_deadlines(served):
    _, engine = served
    late = lmtp.Embed(inputs=((1,) * 60,) * 1000, deadline_ms=1, stream_id=1)
    (end,) = replies(engine, late)
    assert (end.stream_id, end.finish_reason) == (1, "deadline")


def test_the_longest_answer_is_a_line_that_is_read():
    array = numpy.full((MOST_IN_A_LINE // 64, 64), -1.23456789e-30, dtype=numpy.float32)
    event = EncodedEvent({"last": (array,)}, ((30_522,) * 1_000_000,), "none", normalize=False)
    line = lmtp.encode_line(embedded(event, 1))
    assert len(line) < lmtp.MAX_LINE


def test_numbers_survive_the_way():
    array = numpy.random.default_rng(0).standard_normal((40, 50)).astype(numpy.float32)
    line = lmtp.encode_line(embedded(EncodedEvent({"last": (array,)}, ((1,) * 40,), "none", normalize=False), 1))
    (answer,) = parse_line(line)
    assert numpy.array_equal(numpy.array(answer.last_hidden_state[0], dtype=numpy.float32), array)
    assert json.loads(line.partition(" ")[2])["stream_id"] == 1


@pytest.mark.parametrize("limit", [None, 1, 2, 5, 11, 12])
def test_texts_are_cut_where_transformers_cuts(limit):
    from tokenizers import processors

    tokenizer = byte_tokenizer(cls_token="<c>", sep_token="<s>")
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<c> $A <s>", special_tokens=[("<c>", first), ("<s>", last)]
    )
    wanted = [first, *tokenizer.encode("ten letters", add_special_tokens=False), last]
    if limit is not None and limit >= 2:
        wanted = tokenizer("ten letters", truncation=True, max_length=limit)["input_ids"]
    found = encoded("ten letters", tokenizer, limit)
    assert found == (tuple(wanted) if limit != 1 else (last,))
