"""The vectors of docs/2-protocol.md, run through the package."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cogsmith.errors import ProtocolError
from cogsmith.lmtp import encode_items, encode_line, parse_batch, parse_line

PAGE = (Path(__file__).parents[2] / "docs" / "2-protocol.md").read_text()
BLOCKS = re.findall(r"^```(\w+) ?(\w*)\n(.*?)\n```$", PAGE, flags=re.MULTILINE | re.DOTALL)
"""Language, marking and text of each fenced block."""


def vectors(language, kind):
    """The texts of the page's blocks with one marking; a page without any would prove nothing."""
    found = [text for its_language, its_kind, text in BLOCKS if (its_language, its_kind) == (language, kind)]
    assert found
    return found


def answered_batches():
    """Each batch of the page with the lines that answer its failures."""
    following = [*BLOCKS[1:], ("", "", "")]
    return [
        (text, after[2].splitlines() if after[1] == "answers" else [])
        for (_, kind, text), after in zip(BLOCKS, following, strict=True)
        if kind == "batch"
    ]


def test_every_block_is_a_known_kind():
    known = {("json", "batch"), ("json", "refused"), ("text", "line"), ("text", "answers"), ("text", "refused")}
    assert {(language, kind) for language, kind, _ in BLOCKS} == known | {("python", "")}


@pytest.mark.parametrize(("text", "answers"), answered_batches())
def test_batches_and_their_failures(text, answers):
    batch = parse_batch(text)
    assert [encode_line(failure.reply) for failure in batch.failures] == [f"{line}\n" for line in answers]
    assert len(batch.operations) == len(json.loads(text)) - len(answers)


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
