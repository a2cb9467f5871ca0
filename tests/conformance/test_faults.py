"""What is wrong stays where it is wrong."""

from __future__ import annotations

import json

import pytest

from .server import extended, generate

NO_BATCH = ["nonsense", "{}", "[]", '[["GENERATE"]', "3", '"GENERATE"', "null", '{"prompt": [1]}', "[" * 5000]


@pytest.mark.whole_batch
@pytest.mark.parametrize("text", NO_BATCH, ids=range(len(NO_BATCH)))
def test_what_is_no_batch_is_answered_once(server, text):
    if text.startswith("[") or not is_socket(server):
        assert server.send_text(text).error(None)


def is_socket(server):
    """At a WebSocket, a text that does not begin a list is a line."""
    return type(server).__name__ == "WebSocket"


@pytest.mark.whole_batch
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(server, truth, number):
    batch = json.dumps([generate(1, truth.prompt(4), temperature="T")]).replace('"T"', number)
    assert any(payload["error"] for _, payload in server.send_text(batch).all)


@pytest.mark.whole_batch
def test_an_unknown_verb_is_an_error_of_its_own(server, truth):
    asked = generate(2, truth.prompt(4), max_tokens=2)
    answers = server.send(["SING", {"stream_id": 1}], asked)
    assert "SING" in answers.error(1)
    truth.check(asked, answers)


@pytest.mark.whole_batch
def test_a_stream_id_is_any_number_of_the_clients(server, truth):
    operations = [generate(i, truth.prompt(4), max_tokens=2) for i in (0, -7, 2**53 - 1, 1_000_000)]
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)


@pytest.mark.whole_batch
def test_the_second_operation_of_a_stream_is_refused_and_the_first_goes_on(server, truth):
    first, second = generate(1, truth.prompt(4), max_tokens=3), generate(1, truth.prompt(6), max_tokens=3)
    answers = server.send_text(json.dumps([first, second]))
    assert answers.error(None)
    truth.check(first, answers)


@pytest.mark.whole_batch
def test_an_operation_without_a_stream_is_answered_without_one(server, truth):
    asked = generate(1, truth.prompt(4), max_tokens=2)
    answers = server.send_text(json.dumps([["GENERATE", {"prompt": truth.prompt(3)}], asked]))
    assert answers.error(None)
    truth.check(asked, answers)


def test_a_body_of_more_than_a_megabyte_is_taken(server, truth):
    """LMQL sends a vocabulary of 128k ids as one bias: about 1.1 MB."""
    bias = {str(id_): -100 for id_ in range(130_000) if id_ not in truth.letters}
    asked = generate(1, truth.prompt(5), max_tokens=3, logit_bias=bias)
    assert len(json.dumps(asked)) > 1.1 * 2**20
    truth.check(asked, server.send(asked))


@pytest.mark.whole_batch
def test_as_many_operations_as_it_says_are_taken_and_no_more(server, truth):
    most = server.info.get("limits", {}).get("max_operations", 64)
    operations = [generate(i, truth.prompt(3), max_tokens=1) for i in range(most)]
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)
    answers = server.send_text(json.dumps([*operations, generate(most, truth.prompt(3), max_tokens=1)]))
    assert answers.error(None)
    # At a WebSocket, where the refusal ends nothing that LMQL waits for, its streams may be told one by one besides.
    assert all("error" in payload for _, payload in answers.all)


@pytest.mark.features("allow")
@pytest.mark.whole_batch
def test_an_operation_of_1_1_is_told_its_errors_by_end(server, truth):
    asked = generate(1, truth.prompt(4), max_tokens=2)
    misspelt = extended(generate(2, truth.prompt(4)), top_logprob=3)
    answers = server.send(asked, misspelt)
    end = answers.end(2, None)
    assert (end["finish_reason"], "top_logprobs" in end["error"]) == ("error", True)
    truth.check(asked, answers)


@pytest.mark.features("allow")
def test_a_version_that_nobody_speaks_is_an_error(server, truth):
    """Told in the words of 1.0."""
    operation = ["GENERATE", {"prompt": truth.prompt(3), "stream_id": 1, "lmtp": "2.0"}]
    ((verb, payload),) = server.send_text(json.dumps([operation])).all
    assert (verb, payload.keys()) == ("TOKEN", {"stream_id", "error"})
