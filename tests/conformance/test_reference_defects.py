"""What LMQL 0.7.3's own server does wrong, seen by running it: each must not come again.

One more is not seen on the wire: it copies the whole vocabulary's scores to the host at every token, and keeps them.
"""

from __future__ import annotations

import json

import pytest

from .server import Underway, generate, score

pytestmark = pytest.mark.whole_batch


def endless(truth, **fields):
    """Fields of a GENERATE that no end token ends."""
    return {"logit_bias": truth.endless, **fields}


def test_1_a_stream_went_on_to_the_longest_max_tokens_of_its_batch(server, truth):
    counts = [3, 13, 1, 7]
    operations = [generate(i, truth.prompt(9, i), **endless(truth, max_tokens=n)) for i, n in enumerate(counts)]
    answers = server.send(*operations)
    assert [len(answers.of(i)) for i in range(4)] == counts
    for operation in operations:
        truth.check(operation, answers)


def test_2_a_row_kept_saying_its_end_token(server, truth):
    end = min(truth.eos_ids)
    short = generate(1, truth.prompt(9), max_tokens=12, logit_bias={str(end): 1000})
    long = generate(2, truth.prompt(9), **endless(truth, max_tokens=12))
    answers = server.send(short, long)
    assert answers.tokens(1) == [end]
    assert len(answers.of(2)) == 12


def test_3_every_streams_last_token_came_twice(server, truth):
    asked = generate(1, truth.prompt(9), **endless(truth, max_tokens=5, top_logprobs=2))
    answers = server.send(asked)
    assert len(answers.of(1)) == 5
    truth.check(asked, answers)


def test_4_a_list_of_end_tokens_failed_and_only_the_config_was_asked_for_them(server, truth):
    if len(truth.eos_ids) < 2:
        pytest.skip("this model has one end token")
    ends = sorted(truth.eos_ids)
    answers = server.send(
        *(generate(i, truth.prompt(9, 1), max_tokens=4, logit_bias={str(end): 1000}) for i, end in enumerate(ends))
    )
    assert [answers.of(i)[0]["finish_reason"] for i in range(len(ends))] == ["stop"] * len(ends)
    assert [answers.tokens(i) for i in range(len(ends))] == [[end] for end in ends]


def test_5_all_got_the_most_top_logprobs_of_the_batch_and_none_failed(server, truth):
    operations = [generate(i, truth.prompt(9, i), max_tokens=4, top_logprobs=i) for i in (2, 5, 0)]
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)


BAD = {
    "an empty prompt": ["GENERATE", {"prompt": []}],
    "no prompt of a tokenizer without BOS": ["GENERATE", {"prompt": [None]}],
    "max_tokens 0": ["GENERATE", {"prompt": [1], "max_tokens": 0}],
    "an id that the model does not have": ["GENERATE", {"prompt": [10**7]}],
    "a negative id": ["GENERATE", {"prompt": [-1]}],
    "a prompt of text": ["GENERATE", {"prompt": "hello"}],
    "no prompt": ["GENERATE", {}],
    "a fraction of an id": ["GENERATE", {"prompt": [1.5]}],
    "a negative temperature": ["GENERATE", {"prompt": [1], "temperature": -1}],
    "a top_p beyond 1": ["GENERATE", {"prompt": [1], "top_p": 1.5}],
    "a bias of text": ["GENERATE", {"prompt": [1], "logit_bias": {"3": "much"}}],
    "a bias under no id": ["GENERATE", {"prompt": [1], "logit_bias": {"three": 1}}],
    "a penalty of zero": ["GENERATE", {"prompt": [1], "repetition_penalty": 0}],
    "nothing to score": ["SCORE", {"prompt": [1], "scored": []}],
    "an id to score that the model does not have": ["SCORE", {"prompt": [1], "scored": [2, 10**7]}],
    "a payload that is no object": None,
}


@pytest.mark.parametrize("fault", BAD)
def test_6_one_bad_request_failed_its_whole_batch(server, truth, fault):
    good = [generate(1, truth.prompt(9), max_tokens=4), score(3, truth.prompt(4), truth.prompt(3, 7))]
    verb, payload = BAD[fault] or ("GENERATE", None)
    bad = [verb, None if payload is None else {**payload, "stream_id": 2}]
    answers = server.send_text(json.dumps([good[0], bad, good[1]]))
    assert answers.error(None if payload is None else 2)
    for operation in good:
        truth.check(operation, answers)


def test_6_a_bias_beyond_the_vocabulary_failed_the_batch(server, truth):
    operations = [
        generate(i, truth.prompt(9), max_tokens=4, logit_bias={str(id_): 50}) for i, id_ in [(1, 10**8), (2, 5)]
    ]
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)


def test_7_penalties_that_lmql_sends_were_errors(server, truth):
    """`length_penalty` means nothing, and is taken."""
    asked = generate(
        1,
        truth.prompt(9),
        max_tokens=8,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        length_penalty=1.2,
        top_logprobs=3,
    )
    truth.check(asked, server.send(asked))


def test_8_requests_of_different_temperatures_waited_for_each_other(server, truth):
    settings = [{}, {"temperature": 0.7}, {"temperature": 1.2, "top_p": 0.9}, {"top_k": 3, "temperature": 1.0}]
    operations = [
        generate(i, truth.prompt(9), **endless(truth, max_tokens=40), **one) for i, one in enumerate(settings)
    ]
    answers = server.send(*operations)
    order = [payload["stream_id"] for _, payload in answers.all]
    last_to_begin = max(order.index(i) for i in range(4))
    first_to_end = min(len(order) - 1 - order[::-1].index(i) for i in range(4))
    assert last_to_begin < first_to_end
    for operation in operations:
        truth.check(operation, answers)


def test_9_a_batch_kept_newcomers_waiting_to_its_end(server, truth):
    room = min(server.info.get("max_context", truth.max_context), 512)
    long = Underway(server, generate(1, truth.prompt(9), **endless(truth, max_tokens=room - 20)))
    long.wait_for(1)
    short = generate(2, truth.prompt(5), max_tokens=2)
    truth.check(short, server.send(short))
    assert long.is_alive()
    assert len(long.answers().of(1)) == room - 20


def test_11_a_generation_configs_sampling_changed_the_results(server, truth):
    """The tiny model's says top_k = 1 at a temperature of 5: draws would all be alike, and greedy tokens others."""
    greedy = generate(0, truth.prompt(9), max_tokens=12, top_logprobs=5)
    drawn = [generate(i, truth.prompt(9), temperature=2.0, max_tokens=12) for i in range(1, 9)]
    answers = server.send(greedy, *drawn)
    truth.check(greedy, answers)
    assert len({tuple(answers.tokens(i)) for i in range(1, 9)}) > 4
