"""What LMTP 1.0 means, sentence by sentence."""

from __future__ import annotations

import numpy as np
import pytest

from .server import generate, score
from .truth import within

HOT = {"temperature": 1.5, "top_logprobs": 4, "max_tokens": 24}


def test_a_greedy_stream_has_the_models_own_tokens_and_numbers(server, truth):
    asked = generate(1, truth.prompt(20), max_tokens=24, top_logprobs=3)
    answers = server.send(asked)
    truth.check(asked, answers)


@pytest.mark.parametrize("sampling", [{}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 6, "top_p": 0.8}, {"top_k": -1}])
def test_numbers_are_the_same_at_any_temperature(server, truth, sampling):
    """They are normalised and finite, and those that truncation leaves out are listed all the same."""
    operations = [generate(i, truth.prompt(10), **HOT, **sampling) for i in range(4)]
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)


def test_log_probabilities_of_a_whole_vocabulary_sum_to_one(server, truth):
    asked = generate(1, truth.prompt(9), max_tokens=2, temperature=2.0, top_logprobs=truth.vocab_size)
    answers = server.send(asked)
    truth.check(asked, answers)
    for item in answers.of(1):
        assert len(item["top_logprobs"]) == truth.vocab_size
        listed = np.exp(list(item["top_logprobs"].values())).sum()
        # Ids that the tokenizer cannot decode count in the sum and are not listed.
        assert listed <= 1 + 1e-3
        if truth.vocab_size == truth.head_size:
            assert listed == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_best_tokens_and_the_sampled_one_are_listed(server, truth, count):
    operations = [
        generate(i, truth.prompt(12, i), max_tokens=12, temperature=t, top_logprobs=count) for i, t in [(1, 0), (2, 3)]
    ]
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)


def test_one_is_listed_where_nothing_is_said(server, truth):
    asked = generate(1, truth.prompt(12), max_tokens=3)
    answers = server.send(asked)
    assert [len(item["top_logprobs"]) for item in answers.of(1)] == [1] * len(answers.of(1))


def test_32_tokens_come_where_nothing_is_said(server, truth):
    asked = generate(1, truth.prompt(12), logit_bias=truth.endless)
    answers = server.send(asked)
    assert len(answers.of(1)) == 32
    truth.check(asked, answers)


BIASES = {
    "LMQL's allowed": lambda truth: {str(id_): 100 for id_ in truth.letters[:5]},
    "LMQL's forbidden": lambda truth: {str(id_): -100 for id_ in range(0, truth.vocab_size, 2)},
    "all of the vocabulary": lambda truth: {str(id_): (id_ % 7) - 3.5 for id_ in range(truth.head_size)},
    "fractions": lambda truth: {str(id_): 0.1 * i for i, id_ in enumerate(truth.letters)},
    "nothing": lambda truth: {str(id_): value for id_, value in zip(truth.letters, [-0.0, 0.0, 0], strict=False)},
    "tiny": lambda truth: {str(id_): value for id_, value in zip(truth.letters, [5e-324, 1e-30, -1e-12], strict=False)},
    "beyond the vocabulary": lambda truth: {"1000000": 100, "9007199254740991": -100, str(truth.head_size): 100},
    "one of padding": lambda truth: {str(truth.head_size - 1): 100} if truth.head_size > truth.vocab_size else {},
}


@pytest.mark.parametrize("bias", BIASES)
def test_a_bias_is_added_to_the_logits_at_every_step(server, truth, bias):
    """Masked-out tokens are listed near -100, as the bias is no more than that."""
    asked = generate(1, truth.prompt(14), max_tokens=6, logit_bias=BIASES[bias](truth), top_logprobs=20)
    answers = server.send(asked)
    truth.check(asked, answers)


def test_a_bias_as_large_as_a_number_can_be_decides_and_gives_finite_numbers(server, truth):
    chosen, other = truth.letters[:2]
    bias = {str(chosen): 1e300, str(other): -1e300}
    answers = server.send(generate(1, truth.prompt(5), max_tokens=3, logit_bias=bias, top_logprobs=truth.vocab_size))
    assert answers.tokens(1) == [chosen] * 3
    for item in answers.of(1):
        assert item["logprob"] == pytest.approx(0, abs=1e-6)
        assert np.isfinite(list(item["top_logprobs"].values())).all()


def test_any_end_token_ends_a_stream_and_is_sent(server, truth):
    operations = [
        generate(i, truth.prompt(8), max_tokens=10, logit_bias={str(id_): 1000}) for i, id_ in enumerate(truth.eos_ids)
    ]
    answers = server.send(*operations)
    for operation, id_ in zip(operations, truth.eos_ids, strict=True):
        stream_id = operation[1]["stream_id"]
        assert [(item["token"], item["finish_reason"]) for item in answers.of(stream_id)] == [(id_, "stop")]
        truth.check(operation, answers)


def test_an_end_token_that_comes_last_says_stop(server, truth):
    end = min(truth.eos_ids)
    (item,) = server.send(generate(1, truth.prompt(8), max_tokens=1, logit_bias={str(end): 1000})).of(1)
    assert (item["token"], item["finish_reason"]) == (end, "stop")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_last_of_max_tokens_says_length(server, truth, count):
    asked = generate(1, truth.prompt(8), max_tokens=count, logit_bias=truth.endless)
    answers = server.send(asked)
    assert [item["finish_reason"] for item in answers.of(1)] == [None] * (count - 1) + ["length"]
    truth.check(asked, answers)


@pytest.fixture
def context(server, truth):
    context = server.info.get("max_context", truth.max_context)
    if context > 2048:
        pytest.skip(f"a context of {context} tokens is too long for a test")
    return context


@pytest.mark.parametrize("room", [1, 2, 4])
def test_the_contexts_end_says_length(server, truth, context, room):
    asked = generate(1, truth.prompt(context - room), max_tokens=100, logit_bias=truth.endless, top_logprobs=5)
    answers = server.send(asked)
    assert [item["finish_reason"] for item in answers.of(1)] == [None] * (room - 1) + ["length"]
    truth.check(asked, answers)


@pytest.mark.parametrize("excess", [0, 1, 300])
def test_a_prompt_that_leaves_no_room_is_an_error(server, truth, context, excess):
    asked = generate(2, truth.prompt(6), max_tokens=3)
    answers = server.send(generate(1, truth.prompt(context + excess), max_tokens=1), asked)
    assert answers.error(1)
    truth.check(asked, answers)


def test_a_score_may_reach_to_the_contexts_end_and_no_further(server, truth, context):
    ids = truth.prompt(context + 1)
    fits, exceeds = score(1, ids[:-11], ids[-11:-1]), score(2, ids[:-10], ids[-10:])
    answers = server.send(fits, exceeds)
    truth.check(fits, answers)
    assert answers.error(2)


@pytest.mark.parametrize(("num_prompt", "num_scored"), [(1, 1), (1, 6), (12, 1), (12, 40)])
def test_scores_are_the_models_own(server, truth, num_prompt, num_scored):
    ids = truth.prompt(num_prompt + num_scored)
    asked = score(1, ids[:num_prompt], ids[num_prompt:])
    truth.check(asked, server.send(asked))


@pytest.mark.parametrize("prompt", [[], [None]])
@pytest.mark.parametrize("num_scored", [1, 2, 20])
def test_the_first_token_of_an_empty_prompt_has_nothing_before_it(server, truth, prompt, num_scored):
    asked = score(1, prompt, truth.prompt(num_scored))
    truth.check(asked, server.send(asked))


def test_empty_scored_is_an_error_and_never_silence(server, truth):
    assert server.send(score(1, truth.prompt(3), [])).error(1)


def test_ids_that_the_tokenizer_cannot_decode_are_never_sampled_or_listed(server, truth):
    """The tiny model likes them best; `check` looks at each token and each list."""
    if truth.vocab_size == truth.head_size:
        pytest.skip("this model's head has no padding")
    operations = [
        generate(i, truth.prompt(8), max_tokens=12, temperature=t, top_logprobs=9) for i, t in [(1, 0), (2, 9)]
    ]
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)


PENALTIES = {
    "repetition": {"repetition_penalty": 1.7},
    "repetition wanted": {"repetition_penalty": 0.6},
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 0.9},
    "negative": {"presence_penalty": -1.0, "frequency_penalty": -0.5},
    "all": {"repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.3},
}


@pytest.mark.parametrize("penalties", PENALTIES)
def test_penalties_come_before_the_bias(server, truth, penalties):
    """A bias keeps the stream to a few letters, so that they repeat."""
    bias = {str(id_): 30 for id_ in truth.letters[:4]}
    asked = generate(1, truth.prompt(20), max_tokens=14, logit_bias=bias, top_logprobs=12, **PENALTIES[penalties])
    answers = server.send(asked)
    truth.check(asked, answers)


DRAWS = {
    "temperature 1": {"temperature": 1.0},
    "temperature 0.5": {"temperature": 0.5},
    "top_k": {"temperature": 1.0, "top_k": 3},
    "top_p": {"temperature": 1.3, "top_p": 0.7},
    "both": {"temperature": 2.0, "top_k": 5, "top_p": 0.8},
}


@pytest.mark.whole_batch
@pytest.mark.parametrize("draws", DRAWS)
def test_draws_follow_the_distribution(server, truth, draws):
    """First top_k, then top_p of what that leaves, as in transformers. Six letters are likely, and unequal."""
    settings = DRAWS[draws]
    letters = truth.letters[:6]
    prompt, num_draws = truth.prompt(6), 192
    plain = truth.logits(prompt)[-1]
    bias = {str(id_): 40 + 0.6 * i - plain[id_] for i, id_ in enumerate(letters)}
    drawn = []
    for begin in range(0, num_draws, 64):
        fields = {"max_tokens": 1, "logit_bias": bias, **settings}
        answers = server.send(*(generate(begin + i, prompt, **fields) for i in range(64)))
        drawn += [answers.tokens(begin + i)[0] for i in range(64)]
    expected = truncated(np.exp(0.6 * np.arange(6) / settings["temperature"]), **settings)
    for id_, probability in zip(letters, expected, strict=True):
        assert within(drawn.count(id_), num_draws, probability)


def truncated(weights, *, temperature, top_k=0, top_p=1.0):
    """Ascending weights, as probabilities of what top_k and then top_p leave."""
    kept = np.where(np.arange(len(weights)) >= len(weights) - (top_k or len(weights)), weights, 0)
    kept = kept / kept.sum()
    likelier = np.cumsum(kept[::-1])[::-1] - kept
    kept = np.where(likelier < top_p, kept, 0)
    return kept / kept.sum()


def test_the_name_of_the_model_is_ignored(server, truth):
    asked = generate(1, truth.prompt(8), max_tokens=4, model="nobody/knows-it")
    truth.check(asked, server.send(asked))


def test_fields_that_1_0_does_not_have_are_ignored(server, truth):
    """Those of 1.1 too: an operation that does not say so is none of 1.1."""
    fields = {"allow": {"ranges": [[5, 6]]}, "n": 4, "min_tokens": 9, "stop": ["e"], "colour": "red"}
    asked = generate(1, truth.prompt(8), max_tokens=6)
    truth.check(asked, server.send(generate(1, truth.prompt(8), max_tokens=6, **fields)))


@pytest.mark.whole_batch
def test_model_info_comes_beside_other_answers(server, truth):
    asked = generate(2, truth.prompt(5), max_tokens=3)
    answers = server.send(["MODEL_INFO", {"model": "any", "stream_id": 1, "data": {"a": [1]}}], asked)
    (info,) = answers.of(1)
    assert isinstance(info["model_info"], dict)
    truth.check(asked, answers)


def test_model_info_tells_what_the_checkpoint_is(server, truth):
    known = {
        "vocab_size": truth.vocab_size,
        "head_size": truth.head_size,
        "eos_ids": sorted(truth.eos_ids),
        "bos_id": truth.bos,
    }
    told = server.info
    assert {key: told[key] for key in known if key in told} == {key: known[key] for key in known if key in told}
