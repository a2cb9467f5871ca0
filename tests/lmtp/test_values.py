"""The fields of an operation: which values are legal, and in which words the others are refused."""

from __future__ import annotations

import json
import time

import pytest

from cogsmith.lmtp import Failure, Generate, Score, parse_batch


def one(payload, verb="GENERATE"):
    """Parse a batch of one operation; `payload` is JSON text, or a dict that becomes some."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    (item,) = parse_batch(f'[["{verb}", {text}]]').items
    return item


def generate(field, text):
    """Parse a GENERATE that is right but for one field, given as JSON text."""
    fields = {"prompt": "[1, 2]", "stream_id": "1"} | {field: text}
    return one("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}")


def test_defaults():
    assert one({"prompt": [1, 2], "stream_id": 5}) == Generate(
        max_tokens=32,
        temperature=0.0,
        logit_bias={},
        top_logprobs=1,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        model=None,
        prompt=(1, 2),
        stream_id=5,
    )


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("prompt", "[null]", ()),
        ("prompt", "[ null ]", ()),
        ("prompt", "[]", ()),
        ("stream_id", "-7", -7),
        ("stream_id", "0", 0),
        ("temperature", "1", 1.0),
        ("top_k", "-1", 0),
        ("top_k", "0", 0),
        ("top_p", "1", 1.0),
        ("top_logprobs", "0", 0),
        ("model", "null", None),
        ("presence_penalty", "-2", -2.0),
        ("logit_bias", "{}", {}),
        ("logit_bias", '{"999999999": 100, "3": -0.5}', {999999999: 100.0, 3: -0.5}),
    ],
)
def test_legal_value(field, text, value):
    assert getattr(generate(field, text), field) == value


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("stream_id", "true", "stream_id is true"),
        ("stream_id", "1.0", "stream_id is 1.0"),
        ("stream_id", "null", "stream_id is null"),
        ("stream_id", "9007199254740992", "stream_id is 9007199254740992"),
        ("prompt", "[1, 3.0]", "prompt[1] is 3.0 (give a token id"),
        ("prompt", "[true]", "prompt[0] is true"),
        ("prompt", '[1, 2, "3"]', 'prompt[2] is "3"'),
        ("prompt", "[-1]", "prompt[0] is -1"),
        ("prompt", "[null, 5]", "prompt[0] is null"),
        ("prompt", "[null, null]", "prompt[1] is null"),
        ("prompt", "5", "prompt is 5 (give a list of token ids)"),
        ("prompt", '"text"', 'prompt is "text"'),
        ("max_tokens", "0", "max_tokens is 0 (give a whole number from 1)"),
        ("max_tokens", "1e1", "max_tokens is 1e1"),
        ("max_tokens", "null", "max_tokens is null"),
        ("temperature", "-0.1", "temperature is -0.1 (give a number from 0)"),
        ("temperature", "1e999", "temperature is 1e999"),
        ("temperature", "true", "temperature is true"),
        ("temperature", '"0"', 'temperature is "0"'),
        ("top_p", "0", "top_p is 0 (give a number above 0 and at most 1)"),
        ("top_p", "1.01", "top_p is 1.01"),
        ("top_k", "-2", "top_k is -2"),
        ("top_k", "2.5", "top_k is 2.5"),
        ("top_logprobs", "-1", "top_logprobs is -1 (give a whole number from 0)"),
        ("repetition_penalty", "0", "repetition_penalty is 0 (give a number above 0)"),
        ("presence_penalty", "-1e999", "presence_penalty is -1e999 (give a finite number)"),
        ("frequency_penalty", "[]", "frequency_penalty is []"),
        ("model", "3", "model is 3 (give a string)"),
        ("logit_bias", "[1]", "logit_bias is [1] (give an object"),
        ("logit_bias", "null", "logit_bias is null"),
        ("logit_bias", '{"1e3": 1}', 'logit_bias has the key "1e3"'),
        ("logit_bias", '{"01": 1}', 'logit_bias has the key "01"'),
        ("logit_bias", '{"-1": 1}', 'logit_bias has the key "-1"'),
        ("logit_bias", '{"-0": 1}', 'logit_bias has the key "-0"'),
        ("logit_bias", '{" 1": 1}', 'logit_bias has the key " 1"'),
        ("logit_bias", '{"": 1}', 'logit_bias has the key ""'),
        ("logit_bias", '{"1.0": 1}', 'logit_bias has the key "1.0"'),
        ("logit_bias", '{"9007199254740992": 1}', 'logit_bias has the key "9007199254740992"'),
        ("logit_bias", '{"٣": 1}', r'logit_bias has the key "\u0663"'),
        ("logit_bias", '{"5": true}', 'logit_bias["5"] is true (give a finite number)'),
        ("logit_bias", '{"5": null}', 'logit_bias["5"] is null'),
        ("logit_bias", '{"4": 1, "5": 1e999}', 'logit_bias["5"] is 1e999'),
    ],
)
def test_illegal_value(field, text, words):
    item = generate(field, text)
    assert isinstance(item, Failure)
    assert words in item.message
    assert item.message.startswith("operation 1 (GENERATE): ")
    assert item.stream_id == (None if field == "stream_id" else 1)


@pytest.mark.parametrize(
    ("verb", "payload", "words"),
    [
        ("GENERATE", {"stream_id": 1}, "prompt is missing (give a list of token ids)"),
        ("GENERATE", {"prompt": [1]}, "stream_id is missing"),
        ("SCORE", {"prompt": [1], "stream_id": 1}, "scored is missing"),
        ("SCORE", {"prompt": [1], "scored": [], "stream_id": 1}, "scored is [] (give a list of at least one token id)"),
        ("SCORE", {"prompt": [1], "scored": [None], "stream_id": 1}, "scored[0] is null"),
        ("MODEL_INFO", {}, "stream_id is missing"),
    ],
)
def test_missing_or_empty(verb, payload, words):
    assert words in one(payload, verb).message


def test_an_empty_prompt_may_be_scored():
    for prompt in ([], [None]):
        item = one({"prompt": prompt, "scored": [5], "stream_id": 1}, "SCORE")
        assert item == Score(prompt=(), scored=(5,), stream_id=1)


def test_all_faults_of_an_operation_are_told_at_once():
    item = one({"max_tokens": 0, "top_p": 2, "prompt": [1.5, "a"], "stream_id": 1})
    for words in ["max_tokens is 0", "top_p is 2", "prompt[0] is 1.5", 'prompt[1] is "a"']:
        assert words in item.message


def test_many_bad_entries_make_a_short_message():
    item = one({"prompt": [1], "stream_id": 1, "logit_bias": {f"x{n}": 1 for n in range(10_000)}})
    assert '"x0"' in item.message
    assert "more entries like these" in item.message
    assert len(item.message) < 500


def test_long_values_are_shortened():
    item = one({"prompt": "x" * 100_000, "stream_id": 1})
    assert len(item.message) < 200


@pytest.mark.parametrize("digits", [20, 400, 5_000, 100_000])
def test_huge_integers(digits):
    huge = "9" * digits
    for field in ["stream_id", "max_tokens", "top_k", "top_logprobs"]:
        assert f"{field} is 999" in generate(field, huge).message
    assert 'key "999' in generate("logit_bias", f'{{"{huge}": 1}}').message
    assert "prompt[0] is 999" in generate("prompt", f"[{huge}]").message


def test_deep_values():
    deep = "[" * 500 + "]" * 500
    assert "prompt[0] is [[[" in generate("prompt", deep).message


def test_a_mask_over_a_whole_vocabulary_is_read_at_once():
    mask = {str(token): -100 for token in range(48_000)}
    text = json.dumps([["GENERATE", {"prompt": [1], "stream_id": 1, "logit_bias": mask}]])
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        (item,) = parse_batch(text).items
        seconds.append(time.perf_counter() - start)
    assert item.logit_bias == dict.fromkeys(range(48_000), -100.0)
    assert min(seconds) < 0.1
