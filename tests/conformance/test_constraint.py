"""Texts of a form that the server itself keeps to, against Python's own judge of each form."""

from __future__ import annotations

import json
import re

import pytest

from .server import extended, generate
from .truth import log_softmax, ranges

pytestmark = pytest.mark.features("constraint", "n", "seed")


def texts(server, truth, constraint, **fields):
    """What eight branches write under a constraint, the end token left out."""
    asked = extended(generate(1, truth.prompt(12)), constraint=constraint, n=8, seed=1, temperature=1.0, **fields)
    answers = server.send(asked)
    assert [answers.end(1, i).get("error") for i in range(8)] == [None] * 8
    return [
        (
            truth.decode([id_ for id_ in answers.tokens(1, i) if id_ not in truth.eos_ids]),
            answers.end(1, i)["finish_reason"],
        )
        for i in range(8)
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_choice_is_made_with_the_numbers_of_what_can_follow(server, truth, temperature):
    """A token can follow where the text with it begins a choice; a whole choice may end."""
    choices = ["cat", "car", "dog", "do"]
    fields = {"constraint": {"choice": choices}, "max_tokens": 9, "temperature": temperature, "seed": 3}
    asked = extended(generate(1, truth.prompt(9)), **fields)
    answers = server.send(asked)
    tokens = answers.tokens(1, 0)
    assert truth.decode([id_ for id_ in tokens if id_ not in truth.eos_ids]) in choices
    assert answers.end(1)["finish_reason"] == "stop"
    prompt = truth.prompt(9)
    rows = truth.logits([*prompt, *tokens])[len(prompt) - 1 : -1]
    for step, (row, item) in enumerate(zip(rows, answers.of(1, 0), strict=True)):
        can = sorted(followers(truth, choices, tokens[:step]))
        assert item["token"] in can
        assert item["logprob"] == truth.near(log_softmax(row[can])[can.index(item["token"])])


def followers(truth, choices, made):
    text = truth.decode(made)
    ids = {id_ for id_ in range(truth.vocab_size) if id_ not in truth.eos_ids}
    can = {id_ for id_ in ids if any(choice.startswith(text + truth.decode([id_])) for choice in choices)}
    return can | truth.eos_ids if text in choices else can


PATTERNS = [
    r"[0-9]{2,4}",
    r"(red|green), (red|blue)",
    r"[a-z]{1,5}@[a-z0-9]{1,5}\.(org|net)",
    r"a{3}b{0,3}",
    "[éü日]{2}",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_text_matches_its_regex(server, truth, pattern):
    for text, reason in texts(server, truth, {"regex": pattern}, max_tokens=40):
        assert reason == "stop"
        assert re.fullmatch(pattern, text), text


def test_a_text_is_json_of_its_schema(server, truth):
    schema = {
        "type": "object",
        "properties": {"old": {"type": "boolean"}, "kind": {"enum": ["lamp", "key"]}},
        "required": ["old", "kind"],
        "additionalProperties": False,
    }
    for text, reason in texts(server, truth, {"json_schema": schema}, max_tokens=100):
        if reason == "stop":
            made = json.loads(text)
            assert made.keys() == {"old", "kind"}
            assert isinstance(made["old"], bool)
            assert made["kind"] in ("lamp", "key")


def test_what_must_follow_costs_no_probability(server, truth):
    """A text that is given in full has a log-probability of 0."""
    given = extended(generate(1, truth.prompt(12)), constraint={"choice": ["the key is green"]}, max_tokens=60)
    answers = server.send(given)
    assert truth.decode([id_ for id_ in answers.tokens(1, 0) if id_ not in truth.eos_ids]) == "the key is green"
    if truth.head_size < 1000:  # one token for each letter: no other way to write it
        ends = [item for item in answers.of(1, 0) if item["token"] not in truth.eos_ids]
        assert [item["logprob"] for item in ends] == [0.0] * len("the key is green")


def test_a_mask_and_a_constraint_hold_together(server, truth):
    letters = truth.letters[:3]
    allow = ranges([*letters, *truth.eos_ids])
    for text, _ in texts(server, truth, {"regex": "[b-z]{4}"}, allow=allow, max_tokens=9):
        assert re.fullmatch("[bc]{4}", text)


@pytest.mark.whole_batch
@pytest.mark.parametrize(
    "constraint", [{"regex": "(("}, {"choice": []}, {}, {"colour": "red"}, {"json_schema": {"type": 7}}]
)
def test_what_is_no_constraint_is_an_error_of_its_own_stream(server, truth, constraint):
    beside = generate(2, truth.prompt(5), max_tokens=3)
    answers = server.send(extended(generate(1, truth.prompt(5)), constraint=constraint), beside)
    assert {payload["finish_reason"] for payload in answers.of(1)} == {"error"}
    truth.check(beside, answers)
