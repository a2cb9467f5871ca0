"""Prompts, chat messages and token ids as they are typed."""

import io
import json
import sys

import pytest
import typer

from cogsmith.cli.inputs import parse_ids, read_constraint, read_messages, read_prompts
from cogsmith.errors import UserError


def test_a_file_is_one_prompt_unless_a_delimiter_parts_it(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("Once\nupon\n\na time\n", encoding="utf-8")
    given = ["first", f"file::{file}"]
    assert read_prompts(given, None) == ["first", "Once\nupon\n\na time\n"]
    assert read_prompts(given, "\n\n") == ["first", "Once\nupon", "a time\n"]
    assert read_prompts(given, "\n") == ["first", "Once", "upon", "a time"]


def test_a_delimiter_leaves_prompts_that_are_typed_alone():
    assert read_prompts(["a|b", ""], "|") == ["a|b", ""]


def test_messages_come_as_text_from_a_file_or_from_stdin(tmp_path, monkeypatch):
    messages = [{"role": "user", "content": "Grüße"}]
    text = json.dumps(messages, ensure_ascii=False)
    (tmp_path / "chat.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
    assert read_messages(f" {text}") == messages
    assert read_messages(str(tmp_path / "chat.json")) == messages
    assert read_messages("-") == messages


@pytest.mark.parametrize("text", ["504,3575,282", "504 3575 282", " 504, 3575,\t282 "])
def test_ids_are_parted_by_commas_or_spaces(text):
    assert parse_ids("--prompt-ids", text) == (504, 3575, 282)


def test_a_schema_and_a_grammar_come_as_text_or_from_a_file(tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "string"}', encoding="utf-8")
    (tmp_path / "rules.lark").write_text('start: "a"', encoding="utf-8")
    for given in ('{"type": "string"}', str(tmp_path / "schema.json")):
        assert read_constraint(None, given, None, None) == {"json_schema": '{"type": "string"}'}
    for given in ('start: "a"', str(tmp_path / "rules.lark")):
        assert read_constraint(None, None, given, None) == {"lark": 'start: "a"'}
    assert read_constraint(None, None, None, ["yes", "no"]) == {"choice": ["yes", "no"]}
    assert read_constraint(None, None, None, []) == {}


def test_a_grammar_may_be_longer_than_a_path():
    grammar = "start: " + " ".join(f"/{i}/" for i in range(2000))
    assert read_constraint(None, None, grammar, None) == {"lark": grammar}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("", None, None, None), "--regex is empty"),
        ((None, "{", None, None), "--json-schema is no JSON"),
        ((None, "[1]", None, None), "--json-schema is no JSON object"),
        ((None, "gone.json", None, None), "gone.json cannot be read: No such file or directory"),
        ((None, None, "gone.lark", None), "gone.lark cannot be read: No such file or directory"),
        ((None, None, None, ["yes", ""]), r"--choice\[1\] is an empty text"),
    ],
)
def test_what_no_server_would_take_is_refused_before_a_model_is_loaded(given, told):
    with pytest.raises(UserError, match=told):
        read_constraint(*given)


def test_there_is_one_constraint():
    with pytest.raises(typer.BadParameter, match="give one of --regex"):
        read_constraint("a", None, None, ["a"])
