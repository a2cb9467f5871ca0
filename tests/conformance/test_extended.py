"""What LMTP 1.1 adds. Each case needs the parts that it names, as MODEL_INFO lists them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

import pytest
from tokenizers import Tokenizer

from .server import extended, generate
from .truth import bits, ranges


def branches(answers, stream_id, count):
    """The tokens of each branch, whose END repeats the last one's reason."""
    for index in range(count):
        assert answers.of(stream_id, index)[-1]["finish_reason"] == answers.end(stream_id, index)["finish_reason"]
    return [answers.tokens(stream_id, index) for index in range(count)]


@pytest.mark.features("allow")
@pytest.mark.parametrize("form", [ranges, bits])
@pytest.mark.parametrize("step", [1, 2, 97])
def test_only_allowed_ids_are_drawn_and_numbers_are_normalised_over_them(server, truth, form, step):
    allow = form(range(0, truth.vocab_size, step))
    asked = extended(generate(1, truth.prompt(12)), allow=allow, max_tokens=6, top_logprobs=truth.vocab_size)
    answers = server.send(asked)
    truth.check(asked, answers, 0)


@pytest.mark.features("allow")
def test_the_bias_moves_probability_among_the_allowed_only(server, truth):
    first, second, other = truth.letters[:3]
    bias = {str(first): 4.0, str(other): 100.0}
    asked = extended(
        generate(1, truth.prompt(12)), allow=bits([first, second]), logit_bias=bias, max_tokens=3, top_logprobs=9
    )
    answers = server.send(asked)
    truth.check(asked, answers, 0)
    assert all(set(item["top_logprobs"]) == {str(first), str(second)} for item in answers.of(1, 0))


@pytest.mark.features("allow")
def test_no_bias_is_large_enough_to_break_a_mask(server, truth):
    only, other = truth.letters[:2]
    bias = {str(only): -1e300, str(other): 1e300}
    answers = server.send(extended(generate(1, truth.prompt(12)), allow=ranges([only]), logit_bias=bias, max_tokens=3))
    assert [(item["token"], item["logprob"]) for item in answers.of(1, 0)] == [(only, 0.0)] * 3


@pytest.mark.features("allow")
def test_ids_beyond_the_vocabulary_have_no_effect_in_a_mask(server, truth):
    allow = ranges([*truth.letters[:2], truth.head_size, 10**6])
    asked = extended(generate(1, truth.prompt(12)), allow=allow, max_tokens=4, top_logprobs=9)
    truth.check(asked, server.send(asked), 0)


@pytest.mark.features("allow")
@pytest.mark.whole_batch
@pytest.mark.parametrize(
    "allow", [{"ranges": []}, {"bits": "AAA="}, {"ranges": [[10**6, 10**6 + 9]]}, {"ranges": [[5, 2]]}]
)
def test_a_mask_that_leaves_nothing_is_an_error(server, truth, allow):
    asked = generate(2, truth.prompt(5), max_tokens=2)
    answers = server.send(extended(generate(1, truth.prompt(12)), allow=allow), asked)
    assert {payload["finish_reason"] for payload in answers.of(1)} == {"error"}
    truth.check(asked, answers)


@pytest.mark.features("allow")
@pytest.mark.parametrize("sampling", [{}, {"top_k": 5}, {"top_p": 0.5}])
def test_a_mask_holds_at_any_temperature(server, truth, sampling):
    """Also where top_k reaches beyond the mask."""
    letters = truth.letters[:3]
    asked = extended(generate(1, truth.prompt(6)), allow=ranges(letters), temperature=50.0, max_tokens=40, **sampling)
    answers = server.send(asked)
    truth.check(asked, answers, 0)
    assert set(answers.tokens(1, 0)) <= set(letters)


@pytest.mark.features("min_tokens")
@pytest.mark.parametrize("least", [0, 1, 5, 9])
def test_the_first_tokens_are_no_end_tokens(server, truth, least):
    bias = {str(id_): 1000 for id_ in truth.eos_ids}
    asked = extended(generate(1, truth.prompt(12)), logit_bias=bias, min_tokens=least, max_tokens=9, top_logprobs=4)
    answers = server.send(asked)
    truth.check(asked, answers, 0)
    assert len(answers.of(1, 0)) == min(least + 1, 9)


@pytest.mark.features("min_tokens", "allow")
def test_end_tokens_stay_where_a_mask_leaves_nothing_else(server, truth):
    asked = extended(generate(1, truth.prompt(12)), allow=ranges(truth.eos_ids), min_tokens=5, max_tokens=5)
    answers = server.send(asked)
    assert [item["finish_reason"] for item in answers.of(1, 0)] == ["stop"]
    truth.check(asked, answers, 0)


@pytest.mark.features("logprob_ids", "allow")
def test_chosen_ids_come_with_every_token_but_for_those_a_mask_excludes(server, truth):
    letters = truth.letters[:5]
    named = [*letters[3:], truth.vocab_size - 1, letters[3]]
    for fields in ({}, {"allow": ranges(letters)}):
        asked = extended(generate(1, truth.prompt(12)), logprob_ids=named, max_tokens=4, top_logprobs=0, **fields)
        answers = server.send(asked)
        truth.check(asked, answers, 0)
        expected = set(letters[3:]) if fields else set(named)
        assert all(set(map(int, item["logprobs"])) == expected for item in answers.of(1, 0))


@pytest.mark.features("n", "seed", "usage")
def test_each_branch_draws_for_itself_with_its_own_seed(server, truth):
    hot = {"temperature": 2.0, "max_tokens": 12, "top_logprobs": 2}
    asked = extended(generate(1, truth.prompt(9)), n=5, seed=7, **hot)
    together = server.send(asked)
    drawn = branches(together, 1, 5)
    assert len(set(map(tuple, drawn))) == 5
    for index in range(5):
        truth.check(asked, together, index)
        assert together.end(1, index)["usage"] == {"prompt_tokens": 9, "tokens": len(drawn[index])}
        alone = server.send(extended(generate(1, truth.prompt(9)), seed=7 + index, **hot))
        assert alone.tokens(1, 0) == drawn[index]


@pytest.mark.features("n")
def test_without_a_seed_draws_differ_from_one_time_to_the_next(server, truth):
    asked = extended(generate(1, truth.prompt(9)), n=4, temperature=2.0, max_tokens=16)
    drawn = [tuple(one) for _ in range(2) for one in branches(server.send(asked), 1, 4)]
    assert len(set(drawn)) == 8


@pytest.mark.features("usage")
def test_an_end_tells_what_the_branch_took(server, truth):
    asked = extended(generate(1, truth.prompt(11)), max_tokens=5, logit_bias=truth.endless)
    answers = server.send(asked)
    end = answers.end(1)
    assert (end["finish_reason"], end["usage"]) == ("length", {"prompt_tokens": 11, "tokens": 5})
    assert 0 <= end["timing"]["first_token_ms"] <= end["timing"]["total_ms"] < 1000 * 120
    truth.check(asked, answers, 0)


@pytest.mark.features("options", "logprob_ids")
@pytest.mark.parametrize("prompt_length", [0, 1, 30])
def test_every_option_is_scored_right_after_the_prompt(server, truth, prompt_length):
    text = truth.prompt(60)
    options = [text[40:41], text[41:50], truth.letters[:3], text[41:50], [max(truth.eos_ids)]]
    asked = ["SCORE", {"lmtp": "1.1", "stream_id": 1, "prompt": text[:prompt_length], "options": options}]
    asked[1] |= {"top_logprobs": 3, "logprob_ids": truth.letters[:2]}
    if prompt_length == 0:
        asked[1] |= {"top_logprobs": 0, "logprob_ids": []}
    answers = server.send(asked)
    for index, option in enumerate(options):
        truth.check(asked, answers, index)
        assert answers.end(1, index)["finish_reason"] == "stop"
        assert answers.end(1, index)["usage"] == {"prompt_tokens": prompt_length, "tokens": len(option)}


@pytest.mark.features("options")
def test_an_option_that_cannot_be_scored_ends_its_own_branch(server, truth):
    asked = ["SCORE", {"lmtp": "1.1", "stream_id": 1, "prompt": truth.prompt(5), "options": [[1], [2, 10**7]]}]
    answers = server.send(asked)
    truth.check(asked, answers, 0)
    assert (answers.end(1, 1)["finish_reason"], answers.tokens(1, 1)) == ("error", [])


@pytest.mark.features("define", "allow")
@pytest.mark.whole_batch
def test_what_is_said_once_is_as_if_it_were_said_each_time(server, truth):
    prompt, letters = truth.prompt(40), truth.letters[:9]
    full = [
        extended(generate(i, [*prompt, letters[i]]), allow=ranges(letters), max_tokens=5, top_logprobs=3)
        for i in range(3)
    ]
    named = [
        [verb, {**payload, "prompt": {"name": "p", "then": [letters[i]]}, "allow": {"name": "a"}}]
        for i, (verb, payload) in enumerate(full)
    ]
    define = {"lmtp": "1.1", "name": "p", "prompt": prompt}, {"lmtp": "1.1", "name": "a", "allow": ranges(letters)}
    answers = server.send(*(["DEFINE", one] for one in define), *named)
    for operation in full:
        truth.check(operation, answers, 0)


@pytest.mark.features("n", "options")
@pytest.mark.whole_batch
def test_a_stream_of_1_0_is_told_the_same_beside_streams_of_1_1(server, truth):
    plain = generate(1, truth.prompt(9), max_tokens=6, top_logprobs=3)
    asked = extended(generate(2, truth.prompt(9)), max_tokens=6, n=2)
    answers = server.send(
        plain, asked, ["SCORE", {"lmtp": "1.1", "stream_id": 3, "prompt": [1], "options": [[2], [3]]}]
    )
    truth.check(plain, answers)
    truth.check(asked, answers, 1)


@pytest.mark.features("tokenizer")
def test_the_tokenizer_encodes_as_the_checkpoints_own(server, truth):
    (told,) = server.send(["TOKENIZER", {"lmtp": "1.1", "stream_id": 1}]).of(1)
    tokenizer = Tokenizer.from_str(gzip.decompress(base64.b64decode(told["tokenizer"])).decode())
    for text in ("naïve 日本 text", " a  b\n", truth.tokenizer.eos_token or ""):
        assert tokenizer.encode(text).ids == list(truth.tokenizer.encode(text))
    assert told["special"]["eos_token"] == truth.tokenizer.eos_token
    pairs = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    assert server.info["tokenizer"] == "sha256:" + hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
