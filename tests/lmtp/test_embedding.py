"""EMBED and its answer."""

from __future__ import annotations

import json

import pytest

from cogsmith import lmtp
from cogsmith.errors import ProtocolError


def parsed(**fields):
    (item,) = lmtp.parse_batch(json.dumps([["EMBED", {"lmtp": "1.1", "stream_id": 1, **fields}]])).items
    return item


@pytest.mark.parametrize(
    "fields",
    [
        {"texts": ["a", ""]},
        {"inputs": [[1, 2], [3]]},
        {"texts": [], "layers": "all", "embedding": True},
        {"texts": ["a"], "layers": [0, 2], "pooling": "none", "normalize": False, "truncate": True},
        {"texts": ["a"], "padding_side": "left", "padding_id": 0, "deadline_ms": 5, "cancel_key": "k", "model": "m"},
    ],
)
def test_what_is_said_arrives_and_survives_a_batch(fields):
    operation = parsed(**fields)
    assert isinstance(operation, lmtp.Embed)
    for name, value in fields.items():
        assert json.loads(json.dumps(getattr(operation, name))) == value
    assert lmtp.parse_batch(lmtp.serialize_batch([operation])).operations == (operation,)
    assert lmtp.parse_line(lmtp.encode_line(operation)) == [operation]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "neither texts nor inputs"),
        ({"texts": ["a"], "inputs": [[1]]}, "both texts and inputs"),
        ({"texts": "abc"}, 'texts is "abc"'),
        ({"texts": [1]}, "texts is [1]"),
        ({"inputs": [[1, -1]]}, "inputs[0][1] is -1"),
        ({"texts": ["a"], "layers": "first"}, 'layers is "first"'),
        ({"texts": ["a"], "pooling": "sum"}, 'pooling is "sum"'),
        ({"texts": ["a"], "normalize": 1}, "normalize is 1"),
        ({"texts": ["a"], "padding_side": "top"}, 'padding_side is "top"'),
        ({"texts": ["a"], "padding_id": -1}, "padding_id is -1"),
        ({"texts": ["a"], "normalise": True}, "did you mean normalize?"),
        ({"texts": ["a"] * 1025}, "texts has 1025 entries (give at most 1024)"),
        ({"inputs": [[1] * 1_000_001]}, "inputs has 1000001 entries"),
    ],
)
def test_what_has_no_meaning_is_named_on_its_stream(fields, words):
    failure = parsed(**fields)
    assert isinstance(failure.reply, lmtp.End)
    assert (failure.reply.stream_id, failure.reply.finish_reason) == (1, "error")
    assert words in failure.reply.error


def test_it_is_of_1_1_alone():
    (failure,) = lmtp.parse_batch('[["EMBED", {"texts": ["a"], "stream_id": 1}]]').failures
    assert "a verb of LMTP 1.1 only" in failure.message
    with pytest.raises(ProtocolError, match=r"1\.1 only"):
        lmtp.parse_line('EMBED {"texts": ["a"], "stream_id": 1}')
