"""The vectors of docs/protocol.md, run through the package."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cogsmith.detokenize import fingerprint
from cogsmith.errors import ProtocolError
from cogsmith.lmtp import Allow, bitset, encode_items, encode_line, pack_mask, parse_batch, parse_line

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
BLOCKS = re.findall(r"^```(\w+) ?(\w*)\n(.*?)\n```$", PAGE, flags=re.MULTILINE | re.DOTALL)
"""Language, marking and text of each fenced block."""


def vectors(language, kind):
    """The texts of the page's blocks with one marking; a page without any would prove nothing."""
    found = [text for its_language, its_kind, text in BLOCKS if (its_language, its_kind) == (language, kind)]
    assert found
    return found


def followed_batches(kind):
    """Each batch of the page with the text of the block behind it, where that is of `kind`; else with none."""
    following = [*BLOCKS[1:], ("", "", "")]
    return [
        (text, after[2] if after[1] == kind else "")
        for (_, its_kind, text), after in zip(BLOCKS, following, strict=True)
        if its_kind == "batch"
    ]


def test_every_block_is_a_known_kind():
    known = {
        *(("json", kind) for kind in ("batch", "means", "refused", "mask", "fingerprint")),
        *(("text", kind) for kind in ("line", "answers", "refused")),
    }
    assert {(language, kind) for language, kind, _ in BLOCKS} == known | {("python", "")}


@pytest.mark.parametrize(("text", "answers"), followed_batches("answers"))
def test_batches_and_their_failures(text, answers):
    batch = parse_batch(text)
    assert "".join(encode_line(failure.reply) for failure in batch.failures).splitlines() == answers.splitlines()
    failed = {int(position) for position in re.findall(r"\"error\": \"operation (\d+)", answers)}
    sound = [
        payload["stream_id"]
        for position, (verb, payload) in enumerate(json.loads(text), start=1)
        if verb != "DEFINE" and position not in failed
    ]
    assert [operation.stream_id for operation in batch.operations] == sound


@pytest.mark.parametrize(("text", "means"), [pair for pair in followed_batches("means") if pair[1]])
def test_batches_that_mean_the_same(text, means):
    assert parse_batch(text).operations == parse_batch(means).operations


@pytest.mark.parametrize("text", vectors("json", "mask"))
def test_masks(text):
    mask = json.loads(text)
    members = sum(1 << i for i in mask["ids"]).to_bytes(8, "little")
    assert bitset(Allow(ranges=tuple(map(tuple, mask["ranges"]))), 64) == members
    assert bitset(Allow(bits=mask["bits"]), 64) == members
    assert bitset(pack_mask(mask["ids"]), 64) == members


@pytest.mark.parametrize("text", vectors("json", "fingerprint"))
def test_fingerprints(text):
    vector = json.loads(text)
    assert fingerprint(vector["vocabulary"]) == vector["fingerprint"]


@pytest.mark.parametrize("line", vectors("text", "line"))
def test_lines(line):
    messages = parse_line(line)
    assert line in (encode_line(messages[0]).rstrip(), encode_items(messages))


@pytest.mark.parametrize("text", vectors("json", "refused"))
def test_refused_batches(text):
    with pytest.raises(ProtocolError):
        parse_batch(text)


@pytest.mark.parametrize("line", vectors("text", "refused"))
def test_refused_lines(line):
    with pytest.raises(ProtocolError):
        parse_line(line)


def test_the_python_example_runs():
    (code,) = vectors("python", "")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["answers"] == []
