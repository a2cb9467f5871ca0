"""Traffic recorded with the unmodified LMQL 0.7.3 client and server (tests/lmtp/data/)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cogsmith.lmtp import Generate, LineReader, Score, Token, encode_items, encode_line, parse_batch, parse_line
from cogsmith.lmtp import serialize_batch as serialize

DATA = Path(__file__).parent / "data"
BATCHES = (DATA / "lmql-batches.txt").read_text().splitlines()
LINES = (DATA / "lmql-lines.txt").read_text().splitlines()


@pytest.mark.parametrize("text", BATCHES)
def test_a_clients_batch(text):
    batch = parse_batch(text)
    assert (batch.failures, batch.warnings) == ((), ())
    assert json.loads(serialize(batch.operations)) == json.loads(text)


def test_what_the_client_meant():
    masked = next(text for text in BATCHES if '"32": 100' in text)
    (operation,) = parse_batch(masked).operations
    assert isinstance(operation, Generate)
    assert operation.logit_bias == dict.fromkeys(range(32, 42), 100.0)
    assert (operation.max_tokens, operation.temperature, operation.stream_id) == (16, 0.0, 1)
    scored = next(text for text in BATCHES if "43448" in text)
    assert parse_batch(scored).operations == (
        Score(model="org/model", prompt=(1, 19556), scored=(43448, 284, 550, 4354), stream_id=2),
    )


@pytest.mark.parametrize("line", LINES)
def test_a_servers_line(line):
    (message,) = parse_line(line)
    assert encode_line(message) == f"{line}\n"
    verb, _, items = encode_items([message]).partition(" ")
    assert (verb, json.loads(items)) == ("TOKEN", [json.loads(line.removeprefix("TOKEN "))])


def test_a_servers_stream():
    reader = LineReader()
    messages = [message for line in reader.feed("\n".join([*LINES, ""])) for message in parse_line(line)]
    assert len(messages) == len(LINES)
    assert messages[0] == Token(
        token=253,
        stream_id=1,
        logprob=-2.014059153774712,
        finish_reason=None,
        top_logprobs={253: -2.014059153774712, 216: -3.0570002472195363},
    )
    assert {message.finish_reason for message in messages} == {None, "stop", "length"}
