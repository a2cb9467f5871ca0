"""How a branch of LMTP 1.1 ends: by a stop, a deadline, a CANCEL."""

from __future__ import annotations

import time

import pytest

from .server import Underway, extended, generate
from .truth import ranges


@pytest.mark.features("stop", "allow")
@pytest.mark.parametrize("least", [0, 3])
def test_a_branch_ends_with_the_token_that_completes_a_stop(server, truth, least):
    """A single letter is allowed, so it is known when each stop is complete."""
    (letter,) = truth.letters[:1]
    only = {"allow": ranges([letter]), "max_tokens": 6, "min_tokens": least}
    for stop, first in [("aa", 2), ([letter] * 3, 3), ("aaaa", 4), ("b", None), ([letter, letter + 1], None)]:
        answers = server.send(extended(generate(1, truth.prompt(7)), stop=["never", stop], **only))
        # One that ends within the first tokens does not count; the next ends with the next token.
        expected = 6 if first is None else max(first, least + 1)
        assert len(answers.of(1, 0)) == expected
        end = answers.end(1)
        reason = "length" if first is None else "stop_sequence"
        assert (end["finish_reason"], end.get("stop")) == (reason, None if first is None else stop)
        assert answers.of(1, 0)[-1]["finish_reason"] == reason


@pytest.mark.features("stop")
def test_the_prompt_does_not_count_for_a_stop(server, truth):
    prompt = [*truth.prompt(7), *truth.letters[:1]]
    first, second = truth.letters[:2]
    bias = {str(first): 500, **truth.endless}
    asked = extended(generate(1, prompt, logit_bias=bias), stop=[[first, first, first]], max_tokens=5)
    assert server.send(asked).tokens(1, 0) == [first] * 3
    assert second != first


@pytest.mark.features("stop", "allow")
def test_of_several_stops_a_list_comes_before_a_text_and_the_first_to_begin_before_others(server, truth):
    (letter,) = truth.letters[:1]
    only = {"allow": ranges([letter]), "max_tokens": 6}
    cases = [(["aa", [letter, letter]], [letter, letter]), ([[letter], [letter, letter]], [letter]), (["a", "aa"], "a")]
    for stops, told in cases:
        assert server.send(extended(generate(1, truth.prompt(7)), stop=stops, **only)).end(1)["stop"] == told


@pytest.mark.features("stop")
def test_a_text_that_is_spread_over_tokens_is_found(server, truth):
    """Each token of a character beyond ASCII is forced, as a bias that falls from one to the next."""
    ids = truth.encode("é")
    if len(set(ids)) != 2:
        pytest.skip("this tokenizer has one token for it")
    bias = {str(ids[0]): 3000, str(ids[1]): 2000}
    asked = extended(generate(1, truth.prompt(7), logit_bias=bias), stop=["é"], max_tokens=6, frequency_penalty=1500)
    answers = server.send(asked)
    assert answers.tokens(1, 0)[:2] == ids
    assert (answers.end(1)["finish_reason"], answers.end(1)["stop"]) == ("stop_sequence", "é")


@pytest.mark.features("stop")
def test_a_stop_goes_before_every_other_reason(server, truth):
    (letter,) = truth.letters[:1]
    asked = extended(generate(1, truth.prompt(7), logit_bias={str(letter): 1000}), stop=[[letter]], max_tokens=1)
    assert server.send(asked).end(1)["finish_reason"] == "stop_sequence"


@pytest.mark.features("deadline_ms")
@pytest.mark.whole_batch
def test_a_deadline_ends_one_operation_and_no_other(server, truth):
    """A thousandth of a second is over before hundreds of tokens are."""
    room = min(server.info["max_context"], 512) - 20
    late = extended(generate(1, truth.prompt(9), logit_bias=truth.endless), max_tokens=room, deadline_ms=1)
    asked = extended(generate(2, truth.prompt(9)), max_tokens=4, deadline_ms=60_000)
    answers = server.send(late, asked)
    end = answers.end(1)
    assert (end["finish_reason"], end["usage"]["tokens"]) == ("deadline", len(answers.of(1, 0)))
    assert len(answers.of(1, 0)) < room
    truth.check(asked, answers, 0)


@pytest.mark.features("cancel", "n")
def test_a_cancel_ends_the_branches_of_a_key_in_other_predictions(server, truth):
    room = min(server.info["max_context"], 512) - 20
    key = f"conformance-{time.monotonic_ns()}"
    long = extended(generate(1, truth.prompt(9), logit_bias=truth.endless), max_tokens=room, n=2, cancel_key=key)
    other = extended(generate(1, truth.prompt(9)), max_tokens=12, cancel_key=f"{key}-other")
    running = [Underway(server, long) for _ in range(2)]
    beside = Underway(server, other)
    for one in running:
        one.wait_for(2)
    cancelled = 0
    while any(one.is_alive() for one in running):
        (answer,) = server.send(["CANCEL", {"lmtp": "1.1", "cancel_key": key, "stream_id": 5}]).of(5)
        cancelled += answer["cancelled"]
    assert cancelled == 4
    for one in running:
        answers = one.answers()
        for index in range(2):
            end = answers.end(1, index)
            assert (end["finish_reason"], end["usage"]["tokens"]) == ("cancelled", len(answers.of(1, index)))
    truth.check(other, beside.answers(), 0)


@pytest.mark.features("cancel")
def test_a_key_that_nobody_has_cancels_nothing(server, truth):
    (answer,) = server.send(["CANCEL", {"lmtp": "1.1", "cancel_key": "nobody's", "stream_id": 1}]).all
    assert answer == ("MSG", {"stream_id": 1, "cancelled": 0})
