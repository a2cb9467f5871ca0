"""Batches: what is taken, what is refused whole, and what the others do when one operation is bad."""

from __future__ import annotations

import json

import pytest

from cogsmith.errors import InternalError, ProtocolError
from cogsmith.lmtp import (
    BatchLimits,
    Generate,
    MessageError,
    ModelInfo,
    Score,
    TokenError,
    parse_batch,
    serialize_batch,
)

PLAIN = Generate(prompt=(1, 2), stream_id=1)


def one(payload, verb="GENERATE"):
    """Parse a batch of one operation; `payload` is JSON text, or a dict that becomes some."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    (item,) = parse_batch(f'[["{verb}", {text}]]').items
    return item


ROUND_TRIPS = [
    (
        [PLAIN],
        '[["GENERATE", {"max_tokens": 32, "temperature": 0.0, "top_logprobs": 1, "prompt": [1, 2], "stream_id": 1}]]',
    ),
    (
        [Score(model="any", prompt=(), scored=(7, 8), stream_id=-3), ModelInfo(stream_id=2, data={"a": [1, None]})],
        '[["SCORE", {"model": "any", "prompt": [], "scored": [7, 8], "stream_id": -3}],'
        ' ["MODEL_INFO", {"stream_id": 2, "data": {"a": [1, null]}}]]',
    ),
    (
        [
            Generate(
                max_tokens=1,
                temperature=0.5,
                logit_bias={0: -100.0, 49152: 1.5},
                top_logprobs=0,
                top_p=0.9,
                top_k=4,
                repetition_penalty=1.1,
                presence_penalty=-0.5,
                frequency_penalty=0.25,
                model="",
                prompt=(0,),
                stream_id=2**53 - 1,
            )
        ],
        '[["GENERATE", {"max_tokens": 1, "temperature": 0.5, "top_logprobs": 0,'
        ' "logit_bias": {"0": -100.0, "49152": 1.5}, "top_p": 0.9, "top_k": 4, "repetition_penalty": 1.1,'
        ' "presence_penalty": -0.5, "frequency_penalty": 0.25, "model": "", "prompt": [0],'
        ' "stream_id": 9007199254740991}]]',
    ),
]


@pytest.mark.parametrize(("operations", "text"), ROUND_TRIPS)
def test_round_trip(operations, text):
    assert serialize_batch(operations) == text
    assert list(parse_batch(text).items) == operations
    assert parse_batch(text.encode()) == parse_batch(text)


def test_a_bad_operation_leaves_the_others_alone():
    batch = parse_batch(
        '[["GENERATE", {"prompt": [1], "stream_id": 1, "max_tokens": 0}], ["SING", {"stream_id": 2}], 5,'
        ' ["GENERATE", []], ["GENERATE", {"prompt": [1, 2], "stream_id": 9}], ["GENERATE"], ["GENERATE", {}, 1]]'
    )
    assert batch.operations == (Generate(prompt=(1, 2), stream_id=9),)
    assert batch.items[4] is batch.operations[0]
    assert [failure.stream_id for failure in batch.failures] == [1, 2, None, None, None, None]
    assert "operation 3 is 5" in batch.failures[2].message
    assert "the payload is []" in batch.failures[3].message


def test_unknown_verb_names_the_known_ones():
    item = one({"stream_id": 4}, "SING")
    assert item.reply == TokenError(
        stream_id=4, error='operation 1: unknown verb "SING" (give one of GENERATE, SCORE, MODEL_INFO)'
    )


def test_a_failure_is_answered_on_its_own_stream():
    assert isinstance(one({"stream_id": 4}).reply, TokenError)
    assert one({"stream_id": 4}).reply.stream_id == 4
    assert isinstance(one({}).reply, MessageError)
    assert one({}).reply.stream_id is None
    info = one({"stream_id": 4, "model": 1}, "MODEL_INFO").reply
    assert (type(info), info.stream_id) == (MessageError, 4)


GOOD = '["GENERATE", {"prompt": [1], "stream_id": 1}]'
BAD = '["GENERATE", {"prompt": [1], "stream_id": 1, "max_tokens": 0}]'


@pytest.mark.parametrize("second", [GOOD, BAD, '["SING", {"stream_id": 1}]'])
def test_the_second_of_a_stream_never_ends_the_first(second):
    batch = parse_batch(f"[{GOOD}, {second}]")
    assert batch.items[0] == Generate(prompt=(1,), stream_id=1)
    (failure,) = batch.failures
    assert isinstance(failure.reply, MessageError)
    assert failure.reply.stream_id is None
    assert "operation 2: stream_id is 1, as in operation 1" in failure.message


def test_a_failed_operation_owns_its_stream_too():
    batch = parse_batch(f"[{BAD}, {GOOD}]")
    assert batch.operations == ()
    assert [failure.stream_id for failure in batch.failures] == [1, None]


def test_unknown_fields_are_ignored_and_reported():
    batch = parse_batch('[["GENERATE", {"prompt": [1, 2], "stream_id": 1, "min_p": 0.1, "b\\u202er": 1}]]')
    assert batch.items == (PLAIN,)
    assert batch.warnings == (
        'operation 1 (GENERATE): ignored fields that LMTP 1.0 does not have: ["min_p", "b\\u202er"]',
    )


def test_length_penalty_is_ignored_in_silence():
    batch = parse_batch('[["GENERATE", {"prompt": [1, 2], "stream_id": 1, "length_penalty": 1.2}]]')
    assert (batch.items, batch.warnings) == ((PLAIN,), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[", "not JSON"),
        ('[["GENERATE", {"temperature": NaN}]]', "not JSON"),
        ('[["GENERATE", {"temperature": Infinity}]]', "not JSON"),
        ('[["GENERATE", {"temperature": -Infinity}]]', "not JSON"),
        (GOOD + "]", "not JSON"),
        (f"[{GOOD}] {GOOD}", "not JSON"),
        ('[["GENERATE", {"model": "\\ud800"}]]', "not JSON"),
        ("{}", "the batch is {}, not a list"),
        ("null", "the batch is null, not a list"),
        ("[]", "empty list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply|not a list"),
        ("\ud800", "not Unicode"),
        (b"\xff\xfe", "not Unicode"),
        (f"[{', '.join([GOOD] * 65)}]", "holds 65 operations, more than 64"),
    ],
)
def test_no_batch(text, words):
    with pytest.raises(ProtocolError, match=words) as caught:
        parse_batch(text)
    assert caught.value.fix


def test_limits():
    limits = BatchLimits(max_bytes=200, max_operations=2, max_prompt_ids=3, max_bias_entries=1)
    text = (
        '[["GENERATE", {"prompt": [1, 2, 3, 4], "stream_id": 1, "logit_bias": {"1": 1, "2": 2}}],'
        ' ["SCORE", {"prompt": [1, 2, 3], "scored": [1, 2, 3, 4], "stream_id": 2}]]'
    )
    first, second = parse_batch(text, limits).failures
    assert "prompt has 4 entries (give at most 3); logit_bias has 2 entries (give at most 1)" in first.message
    assert second.message.endswith("(SCORE): scored has 4 entries (give at most 3)")
    assert (first.stream_id, second.stream_id) == (1, 2)
    within = '[["GENERATE", {"prompt": [1, 2, 3], "stream_id": 1, "logit_bias": {"1": 1}}]]'
    assert parse_batch(within, limits).failures == ()
    with pytest.raises(ProtocolError, match="2 operations, more than 1"):
        parse_batch(text, BatchLimits(max_operations=1))


def test_the_byte_limit_counts_utf8():
    text = '[["MODEL_INFO", {"stream_id": 1, "model": "é"}]]'
    size = len(text.encode())
    assert parse_batch(text, BatchLimits(max_bytes=size)).failures == ()
    with pytest.raises(ProtocolError, match=f"{size} bytes long, more than {size - 1}"):
        parse_batch(text, BatchLimits(max_bytes=size - 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_not_sent(value):
    with pytest.raises(InternalError):
        serialize_batch([ModelInfo(stream_id=1, data=value)])
