"""Lines: both framings, both directions, and lines out of pieces."""

from __future__ import annotations

import pytest

from cogsmith.errors import InternalError, ProtocolError
from cogsmith.lmtp import (
    Generate,
    Info,
    LineReader,
    MessageError,
    ModelInfo,
    Score,
    Token,
    TokenError,
    encode_items,
    encode_line,
    parse_line,
)

TOKEN = Token(token=5, stream_id=1, logprob=-0.25, finish_reason=None, top_logprobs={5: -0.25, 7: -3.0})
LAST = Token(token=2, stream_id=1, logprob=0.0, finish_reason="stop")

LINES = [
    (
        TOKEN,
        'TOKEN {"token": 5, "stream_id": 1, "logprob": -0.25, "finish_reason": null,'
        ' "top_logprobs": {"5": -0.25, "7": -3.0}}\n',
    ),
    (LAST, 'TOKEN {"token": 2, "stream_id": 1, "logprob": 0.0, "finish_reason": "stop"}\n'),
    (
        Token(token=2, stream_id=1, logprob=0.0, finish_reason="length", top_logprobs={}),
        'TOKEN {"token": 2, "stream_id": 1, "logprob": 0.0, "finish_reason": "length", "top_logprobs": {}}\n',
    ),
    (TokenError(stream_id=3, error="no\nroom"), 'TOKEN {"stream_id": 3, "error": "no\\nroom"}\n'),
    (
        Info(stream_id=1, model_info={"a": {"b": [1, "é"]}}),
        'MSG {"stream_id": 1, "model_info": {"a": {"b": [1, "\\u00e9"]}}}\n',
    ),
    (MessageError(stream_id=None, error="a\u2028b"), 'MSG {"stream_id": null, "error": "a\\u2028b"}\n'),
    (
        Generate(prompt=(1,), stream_id=1),
        'GENERATE {"max_tokens": 32, "temperature": 0.0, "top_logprobs": 1, "prompt": [1], "stream_id": 1}\n',
    ),
    (Score(prompt=(1,), scored=(2,), stream_id=1), 'SCORE {"prompt": [1], "scored": [2], "stream_id": 1}\n'),
    (ModelInfo(stream_id=1), 'MODEL_INFO {"stream_id": 1}\n'),
]


@pytest.mark.parametrize(("message", "line"), LINES)
def test_round_trip(message, line):
    assert encode_line(message) == line
    assert parse_line(line) == [message]
    assert parse_line(line.removesuffix("\n")) == [message]
    assert parse_line(line.replace("\n", "\r\n")) == [message]


def test_the_websocket_framing():
    text = encode_items([TOKEN, LAST])
    assert text == (
        'TOKEN [{"token": 5, "stream_id": 1, "logprob": -0.25, "finish_reason": null,'
        ' "top_logprobs": {"5": -0.25, "7": -3.0}},'
        ' {"token": 2, "stream_id": 1, "logprob": 0.0, "finish_reason": "stop"}]'
    )
    assert parse_line(text) == [TOKEN, LAST]
    assert parse_line("TOKEN []") == []


def test_tokens_and_errors_share_a_text():
    messages = [TOKEN, TokenError(stream_id=2, error="gone")]
    assert parse_line(encode_items(messages)) == messages


@pytest.mark.parametrize("messages", [[], [TOKEN, MessageError(stream_id=None, error="x")]])
def test_a_text_has_one_verb(messages):
    with pytest.raises(InternalError, match="one verb"):
        encode_items(messages)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_numbers_are_not_sent(value):
    bad = [
        Token(token=1, stream_id=1, logprob=value, finish_reason=None),
        Token(token=1, stream_id=1, logprob=-1.0, finish_reason=None, top_logprobs={1: value}),
        Info(stream_id=1, model_info={"a": [value]}),
        Generate(prompt=(1,), stream_id=1, temperature=value),
    ]
    for message in bad:
        with pytest.raises(InternalError):
            encode_line(message)


def test_unknown_fields_of_a_peer_are_ignored():
    assert parse_line('TOKEN {"stream_id": 3, "error": "x", "code": 5}') == [TokenError(stream_id=3, error="x")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "not a line"),
        ("TOKEN", "not a line"),
        ("TOKEN{}", "not a line"),
        ('TOKEN {\n"stream_id": 1, "error": "x"}', "not a line"),
        ('token {"stream_id": 1, "error": "x"}', '"token" is not a verb'),
        (' TOKEN {"stream_id": 1, "error": "x"}', '"" is not a verb'),
        ("TOKEN ", "the payload is"),
        ("TOKEN nonsense", "the payload is nonsense"),
        ("TOKEN 5", "the payload is 5"),
        ("TOKEN [5]", "the payload is 5"),
        ("TOKEN " + "[" * 100_000, "the payload is"),
        ("TOKEN {}", "token is missing.*stream_id is missing.*logprob is missing.*finish_reason is missing"),
        ('TOKEN {"token": 1, "stream_id": 1, "logprob": NaN, "finish_reason": null}', "the payload is"),
        ('TOKEN {"token": 1, "stream_id": 1, "logprob": null, "finish_reason": null}', "logprob is null"),
        ('TOKEN {"token": -1, "stream_id": 1, "logprob": 0, "finish_reason": null}', "token is -1"),
        ('TOKEN {"token": 1, "stream_id": 1, "logprob": 0, "finish_reason": "eos"}', 'finish_reason is "eos"'),
        (
            'TOKEN {"token": 1, "stream_id": 1, "logprob": 0, "finish_reason": null, "top_logprobs": {"x": 1}}',
            "top_logprobs is ",
        ),
        ('TOKEN {"stream_id": null, "error": "x"}', "stream_id is null"),
        ('TOKEN {"stream_id": 1, "error": 5}', "error is 5"),
        ('MSG {"stream_id": 1}', "model_info is missing"),
        ('MSG {"stream_id": 1, "model_info": []}', "model_info is \\[\\]"),
        ('GENERATE [{"prompt": [1], "stream_id": 1}]', "the payload is \\["),
        ('GENERATE {"prompt": [1], "stream_id": 1, "top_p": 0}', "GENERATE: top_p is 0"),
        ("TOKEN \ud800", "not Unicode"),
        ("\ud800 {}", "not a verb"),
    ],
)
def test_no_line(line, words):
    with pytest.raises(ProtocolError, match=words):
        parse_line(line)


STREAM = 'TOKEN {"a": 1}\nMSG {}\r\n\r\n\nTOKEN {"b": "\u2028\x85"}\n'
WHOLE = ['TOKEN {"a": 1}', "MSG {}", 'TOKEN {"b": "\u2028\x85"}']


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_out_of_pieces(size):
    reader = LineReader()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [line for piece in pieces for line in reader.feed(piece)] == WHOLE
    reader.close()


def test_lines_are_given_as_soon_as_they_are_whole():
    reader = LineReader()
    assert reader.feed("TOK") == []
    assert reader.feed("EN 1\nTOKEN 2\nTOK") == ["TOKEN 1", "TOKEN 2"]
    assert reader.feed("") == []
    assert reader.feed("EN 3\r") == []
    assert reader.feed("\n") == ["TOKEN 3"]
    reader.close()


def test_the_end_inside_a_line():
    reader = LineReader()
    assert reader.feed("TOKEN 1\nTOKEN 2") == ["TOKEN 1"]
    with pytest.raises(ProtocolError, match='inside a line: "TOKEN 2"'):
        reader.close()


@pytest.mark.parametrize("pieces", [["123456\n"], ["12\n123456"], [*"123456"], ["123", "456\n"]])
def test_a_line_that_is_too_long(pieces):
    reader = LineReader(max_line=5)
    for piece in pieces[:-1]:
        assert reader.feed(piece) == []
    with pytest.raises(ProtocolError, match="longer than 5"):
        reader.feed(pieces[-1])


def test_a_line_as_long_as_allowed():
    assert LineReader(max_line=5).feed("12345\n" * 3) == ["12345"] * 3


def test_a_long_line_in_small_pieces():
    reader = LineReader()
    for _ in range(300_000):
        assert reader.feed("x") == []
    assert reader.feed("\n") == ["x" * 300_000]
