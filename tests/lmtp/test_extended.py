"""LMTP 1.1 on the wire: every message as it is written, what is an error, and that 1.0 does not notice."""

from __future__ import annotations

import json

import pytest

from cogsmith.errors import ProtocolError
from cogsmith.lmtp import (
    Allow,
    BatchLimits,
    Cancel,
    Cancelled,
    End,
    ExtendedGenerate,
    ExtendedScore,
    ExtendedToken,
    Generate,
    GetTokenizer,
    MessageError,
    ModelInfo,
    Timing,
    TokenError,
    TokenizerFiles,
    Usage,
    encode_items,
    encode_line,
    parse_batch,
    parse_line,
)

LINES = [
    (
        ExtendedGenerate(
            prompt=(1,),
            stream_id=1,
            allow=Allow(ranges=((2, 5),)),
            stop=("\n\n", (7, 8)),
            min_tokens=1,
            seed=3,
            n=2,
            logprob_ids=(4,),
            deadline_ms=100,
            cancel_key="k",
        ),
        'GENERATE {"lmtp": "1.1", "max_tokens": 32, "temperature": 0.0, "top_logprobs": 1, "prompt": [1],'
        ' "stream_id": 1, "allow": {"ranges": [[2, 5]]}, "stop": ["\\n\\n", [7, 8]], "min_tokens": 1, "seed": 3,'
        ' "n": 2, "logprob_ids": [4], "deadline_ms": 100, "cancel_key": "k"}\n',
    ),
    (
        ExtendedScore(prompt=(1,), options=((2, 3), (4,)), stream_id=1, top_logprobs=2),
        'SCORE {"lmtp": "1.1", "prompt": [1], "options": [[2, 3], [4]], "top_logprobs": 2, "stream_id": 1}\n',
    ),
    (Cancel(cancel_key="k", stream_id=2), 'CANCEL {"lmtp": "1.1", "cancel_key": "k", "stream_id": 2}\n'),
    (GetTokenizer(stream_id=3), 'TOKENIZER {"lmtp": "1.1", "stream_id": 3}\n'),
    (
        ExtendedToken(token=5, stream_id=1, index=0, logprob=-0.5, finish_reason=None, logprobs={4: -2.0}),
        'TOKEN {"index": 0, "token": 5, "stream_id": 1, "logprob": -0.5, "finish_reason": null,'
        ' "logprobs": {"4": -2.0}}\n',
    ),
    (
        ExtendedToken(token=5, stream_id=1, index=1, logprob=-0.5, finish_reason="stop_sequence", top_logprobs={}),
        'TOKEN {"index": 1, "token": 5, "stream_id": 1, "logprob": -0.5, "finish_reason": "stop_sequence",'
        ' "top_logprobs": {}}\n',
    ),
    (
        End(
            stream_id=1,
            index=1,
            finish_reason="stop_sequence",
            stop=(7, 8),
            usage=Usage(prompt_tokens=1, tokens=2),
            timing=Timing(first_token_ms=1.5, total_ms=2.5),
        ),
        'END {"stream_id": 1, "index": 1, "finish_reason": "stop_sequence", "stop": [7, 8],'
        ' "usage": {"prompt_tokens": 1, "tokens": 2}, "timing": {"first_token_ms": 1.5, "total_ms": 2.5}}\n',
    ),
    (
        End(stream_id=1, finish_reason="error", error="gone"),
        'END {"stream_id": 1, "finish_reason": "error", "error": "gone"}\n',
    ),
    (Cancelled(stream_id=2, cancelled=0), 'MSG {"cancelled": 0, "stream_id": 2}\n'),
    (
        TokenizerFiles(stream_id=3, tokenizer="H4sI", special={"bos_token": None}),
        'MSG {"stream_id": 3, "tokenizer": "H4sI", "special": {"bos_token": null}}\n',
    ),
]


@pytest.mark.parametrize(("message", "line"), LINES)
def test_each_message_is_written_and_read_so(message, line):
    assert parse_line(line) == [message]
    assert parse_line(encode_line(message)) == [message]
    verb, payload = line.split(" ", 1)
    assert encode_line(message).split(" ", 1)[0] == verb
    assert json.loads(encode_line(message).split(" ", 1)[1]) == json.loads(payload)


def test_the_websocket_framing_of_ends():
    ends = [End(stream_id=1, index=i, finish_reason="stop") for i in range(2)]
    assert parse_line(encode_items(ends)) == ends


@pytest.mark.parametrize("item", ['{"lmtp": "1.1", "stream_id": 1}', '{"stream_id": 1}'])
def test_model_info_is_the_same_in_both(item):
    assert parse_batch(f'[["MODEL_INFO", {item}]]').items == (ModelInfo(stream_id=1),)


def one(verb, **payload):
    (item,) = parse_batch(json.dumps([[verb, payload]])).items
    return item


def test_fields_of_1_1_are_ignored_in_1_0_with_a_warning():
    batch = parse_batch('[["GENERATE", {"prompt": [1], "stream_id": 1, "n": 0, "allow": 5, "stop": "x"}]]')
    assert batch.items == (Generate(prompt=(1,), stream_id=1),)
    assert type(batch.items[0]) is Generate
    assert batch.warnings == (
        'operation 1 (GENERATE): ignored fields that LMTP 1.0 does not have: ["n", "allow", "stop"]',
    )


@pytest.mark.parametrize("verb", ["CANCEL", "TOKENIZER", "DEFINE"])
def test_verbs_of_1_1_without_a_version_are_errors_of_1_0(verb):
    failure = one(verb, stream_id=4, cancel_key="k")
    assert failure.reply == TokenError(
        stream_id=4, error=f'operation 1: "{verb}" is a verb of LMTP 1.1 only (add "lmtp": "1.1")'
    )
    with pytest.raises(ProtocolError):
        parse_line(f'{verb} {{"stream_id": 4, "cancel_key": "k"}}')


@pytest.mark.parametrize("version", ["1.0", "1.2", "2", 1.1, None, ["1.1"]])
def test_a_version_that_is_not_spoken_is_told_in_the_words_of_1_0(version):
    fix = 'give "1.1", or leave lmtp out for 1.0'
    told = f"operation 1: lmtp is {json.dumps(version)}, and 1.0 and 1.1 are spoken ({fix})"
    assert one("GENERATE", lmtp=version, prompt=[1], stream_id=4).reply == TokenError(stream_id=4, error=told)
    assert one("CANCEL", lmtp=version).reply == MessageError(stream_id=None, error=told)


def test_unknown_fields_of_1_1_are_errors_that_name_the_nearest_field():
    failure = one("GENERATE", lmtp="1.1", prompt=[1], stream_id=1, top_logprob=3, temprature=1, length_penalty=1)
    reply = failure.reply
    assert isinstance(reply, End)
    assert (reply.stream_id, reply.index, reply.finish_reason) == (1, None, "error")
    assert '"top_logprob" is no field of GENERATE in LMTP 1.1 (did you mean top_logprobs?)' in reply.error
    assert '"temprature" is no field of GENERATE in LMTP 1.1 (did you mean temperature?)' in reply.error
    assert '"length_penalty" is no field' in reply.error
    assert (
        '"else" is no field of CANCEL in LMTP 1.1 (give only lmtp, cancel_key, stream_id)'
        in one("CANCEL", lmtp="1.1", cancel_key="k", stream_id=1, **{"else": 1}).message
    )
    with pytest.raises(ProtocolError, match="did you mean top_logprobs"):
        parse_line('GENERATE {"lmtp": "1.1", "prompt": [1], "stream_id": 1, "top_logprob": 3}')


def test_many_unknown_fields_make_a_short_message():
    failure = one("GENERATE", lmtp="1.1", prompt=[1], stream_id=1, **{f"x{n}": 1 for n in range(10_000)})
    assert '"x0" is no field' in failure.message
    assert failure.message.endswith("there are 9997 more such fields")
    assert len(failure.message) < 2000


def test_all_that_is_wrong_is_told_at_once():
    wrong = {"n": 129, "seed": -1, "stop": [""], "allow": {"bits": "!"}, "min_tokens": -1, "logprob_ids": [1, "2"]}
    failure = one("GENERATE", lmtp="1.1", prompt=[1], stream_id=1, deadline_ms=0, cancel_key="", nn=1, **wrong)
    for words in (
        "n is 129 (give a whole number from 1 to 128)",
        "seed is -1 (give a whole number from 0)",
        'stop is [""] (give a list of at most 64 texts and lists of token ids, none of them empty)',
        "allow.bits is no base64",
        "min_tokens is -1",
        'logprob_ids[1] is "2" (give a token id: a whole number from 0)',
        "deadline_ms is 0 (give a whole number from 1)",
        'cancel_key is "" (give a string of 1 to 200 characters)',
        "did you mean n?",
    ):
        assert words in failure.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stop", "\n"),
        ("stop", [[]]),
        ("stop", [None]),
        ("stop", [["a"]]),
        ("stop", ["x"] * 65),
        ("allow", [1, 2]),
        ("allow", {"ranges": [[1]]}),
        ("allow", {"ranges": [[-1, 2]]}),
        ("allow", {"range": [[1, 2]]}),
        ("allow", {"ranges": [[1, 2], [2, 9.0]]}),
        ("constraint", "[0-9]"),
        ("constraint", {}),
        ("constraint", {"regex": ""}),
        ("constraint", {"regex": 5}),
        ("constraint", {"regex": "a", "lark": "start: a"}),
        ("constraint", {"regexp": "a"}),
        ("constraint", {"choice": []}),
        ("constraint", {"choice": "ab"}),
        ("constraint", {"choice": ["a", 1]}),
        ("constraint", {"json_schema": "[]"}),
        ("constraint", {"json_schema": []}),
        ("constraint", {"json_schema": "{"}),
        ("n", 1.0),
        ("n", "2"),
        ("n", None),
        ("seed", 2**53),
        ("logprob_ids", [0] * 1025),
        ("cancel_key", "x" * 201),
        ("deadline_ms", 1.5),
    ],
)
def test_illegal_values(field, value):
    assert field in one("GENERATE", lmtp="1.1", prompt=[1], stream_id=1, **{field: value}).message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "options is []"),
        ([[]], "options is [[]]"),
        ([[1, -2], ["x"]], 'options[0][1] is -2 (give a token id: a whole number from 0); options[1][0] is "x"'),
        ([[1], 5], "options is [[1], 5]"),
    ],
)
def test_illegal_options(options, words):
    assert words in one("SCORE", lmtp="1.1", prompt=[1], stream_id=1, options=options).message


def test_score_of_1_1_has_no_scored():
    message = one("SCORE", lmtp="1.1", prompt=[1], stream_id=1, scored=[1]).message
    assert "options is missing" in message
    assert '"scored" is no field of SCORE in LMTP 1.1' in message


def test_an_unknown_verb_of_1_1_ends_its_stream():
    reply = one("SING", lmtp="1.1", stream_id=3).reply
    assert reply == End(
        stream_id=3,
        finish_reason="error",
        error='operation 1: unknown verb "SING" (give one of GENERATE, SCORE, EMBED, CANCEL, TOKENIZER, MODEL_INFO)',
    )


def test_a_failure_without_a_stream_is_a_message():
    assert isinstance(one("GENERATE", lmtp="1.1", prompt=[1]).reply, MessageError)
    assert isinstance(one("MODEL_INFO", lmtp="1.1", stream_id=1, dat=1).reply, MessageError)


def test_the_second_of_a_stream_is_refused_across_versions():
    cancel = '["CANCEL", {"lmtp": "1.1", "cancel_key": "k", "stream_id": 1}]'
    batch = parse_batch(f'[["GENERATE", {{"prompt": [1], "stream_id": 1}}], {cancel}]')
    assert [type(item).__name__ for item in batch.items] == ["Generate", "Failure"]
    assert batch.failures[0].reply.stream_id is None


def test_branches_are_counted_and_the_operation_that_is_too_much_is_refused():
    operations = [
        ["GENERATE", {"lmtp": "1.1", "prompt": [1], "stream_id": 1, "n": 6}],
        ["SCORE", {"lmtp": "1.1", "prompt": [1], "stream_id": 2, "options": [[1]] * 5}],
        ["GENERATE", {"prompt": [1], "stream_id": 3}],
        ["SCORE", {"lmtp": "1.1", "prompt": [1], "stream_id": 4, "options": [[1]] * 4}],
    ]
    batch = parse_batch(json.dumps(operations), BatchLimits(max_branches=10))
    assert [operation.stream_id for operation in batch.operations] == [1, 3, 4]
    assert "with it the batch has 11 branches, more than 10" in batch.failures[0].message


def test_limits():
    payload = {
        "lmtp": "1.1",
        "prompt": [1] * 4,
        "stream_id": 1,
        "logit_bias": {"1": 1, "2": 2},
        "stop": ["abcd", "a", [1, 2, 3, 4]],
        "allow": {"ranges": [[1, 2], [3, 4], [5, 6]]},
    }
    limits = BatchLimits(max_prompt_ids=3, max_bias_entries=1, max_stop_length=3, max_mask=2)
    (failure,) = parse_batch(json.dumps([["GENERATE", payload]]), limits).failures
    for words in ("prompt has 4 entries", "logit_bias has 2", "stop[0] has 4", "stop[2] has 4", "allow has 3 entries"):
        assert words in failure.message
    assert "stop[1]" not in failure.message
    for constraint, words in (
        ({"regex": "abcd"}, "constraint has 4 entries (give at most 3)"),
        ({"json_schema": {"a": 1}}, "constraint has 7 entries"),
        ({"choice": ["a", "b"]}, "constraint.choice has 2 entries (give at most 1)"),
    ):
        asked = {"lmtp": "1.1", "prompt": [1], "stream_id": 1, "constraint": constraint}
        small = BatchLimits(max_constraint=3, max_choices=1)
        (failure,) = parse_batch(json.dumps([["GENERATE", asked]]), small).failures
        assert words in failure.message
    score = ["SCORE", {"lmtp": "1.1", "prompt": [1], "stream_id": 1, "options": [[1, 2], [3, 4]]}]
    (failure,) = parse_batch(json.dumps([score]), limits).failures
    assert "options has 4 entries (give at most 3)" in failure.message
