"""Streams that share a server: none may change another's numbers, however it came or went."""

from __future__ import annotations

import random

import pytest

from .server import Underway, extended, generate, score
from .truth import ranges


def ragged(truth, count, *, seed=0, first=0):
    """Operations of all lengths and settings, each with a mask of its own."""
    draw = random.Random(seed)
    return [
        generate(
            first + i,
            truth.prompt(draw.randint(1, 60), draw.randint(0, 300)),
            max_tokens=draw.randint(1, 25),
            logit_bias={
                str(draw.randrange(truth.head_size)): draw.uniform(-100, 100) for _ in range(draw.choice([0, 3, 90]))
            },
            top_logprobs=draw.randint(0, 6),
        )
        for i in range(count)
    ]


@pytest.mark.whole_batch
def test_more_ragged_streams_than_rows(server, truth):
    """All but the first rows come late, all leave at different times."""
    operations = [*ragged(truth, 36), score(99, truth.prompt(30), truth.prompt(25, 50))]
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)


def test_newcomers_join_what_runs(server, truth):
    """Each begins when the one before it has given some tokens."""
    operations = ragged(truth, 6, seed=5)
    for operation in operations:
        operation[1]["max_tokens"] = 30
    running = []
    for operation in operations:
        running.append(Underway(server, operation))
        running[-1].wait_for(1)
    for operation, one in zip(operations, running, strict=True):
        truth.check(operation, one.answers())


@pytest.mark.whole_batch
def test_the_same_request_many_times_gives_the_same(server, truth):
    operations = [generate(i, truth.prompt(40), max_tokens=8, top_logprobs=3) for i in range(8)]
    answers = server.send(*operations)
    assert len({tuple(answers.tokens(i)) for i in range(8)}) == 1
    for operation in operations:
        truth.check(operation, answers)


@pytest.mark.whole_batch
@pytest.mark.features("seed")
def test_the_same_seed_draws_the_same_alone_and_among_fifteen_others(server, truth):
    asked = extended(generate(77, truth.prompt(12)), temperature=1.5, top_p=0.95, max_tokens=20, seed=11)
    alone = server.send(asked)
    others = ragged(truth, 15, seed=2)
    among = server.send(*others[:7], asked, *others[7:])
    assert among.tokens(77, 0) == alone.tokens(77, 0)
    truth.check(asked, among, 0)


@pytest.mark.whole_batch
@pytest.mark.features("allow", "min_tokens", "logprob_ids")
def test_each_of_sixteen_streams_has_its_own_mask(server, truth):
    draw = random.Random(3)
    operations = [
        extended(
            generate(i, truth.prompt(5 + i), max_tokens=6, top_logprobs=20),
            allow=ranges(draw.sample(range(truth.vocab_size), draw.choice([1, 2, 30, truth.vocab_size // 2]))),
            temperature=draw.choice([0, 1.0]),
            logprob_ids=draw.sample(range(truth.vocab_size), i),
            min_tokens=draw.choice([0, 4]),
        )
        for i in range(15)
    ]
    plain = generate(15, truth.prompt(9), max_tokens=9, top_logprobs=4)
    answers = server.send(*operations, plain)
    for operation in operations:
        truth.check(operation, answers, 0)
    truth.check(plain, answers)


@pytest.mark.parametrize("step", [1, 3, 16])
def test_a_prompt_that_grows_by_its_own_answer_gives_the_numbers_of_a_new_one(server, truth, step):
    """What a client of masks does: the prefix is known, and may be reused, which must not show."""
    prompt = truth.prompt(37)
    for turn in range(4):
        asked = generate(1, prompt, max_tokens=step, top_logprobs=4, logit_bias=truth.endless)
        answers = server.send(asked)
        truth.check(asked, answers)
        prompt = [*prompt, *answers.tokens(1), truth.letters[turn]]


def test_prompts_that_part_in_the_middle_share_nothing_after_it(server, truth):
    stem = truth.prompt(50)
    for cut in (1, 15, 16, 17, 31, 32, 33, 49):
        asked = generate(1, [*stem[:cut], truth.letters[cut % 26], *stem[cut + 1 :]], max_tokens=2, top_logprobs=3)
        truth.check(asked, server.send(asked))


@pytest.mark.whole_batch
def test_many_scores_over_one_prompt(server, truth):
    prompt = truth.prompt(70)
    operations = [score(i, prompt, truth.prompt(1 + i % 5, 3 * i)[-(1 + i % 5) :]) for i in range(20)]
    operations.append(generate(50, prompt, max_tokens=5, top_logprobs=3))
    answers = server.send(*operations)
    for operation in operations:
        truth.check(operation, answers)
    truth.check(operations[3], server.send(operations[3]))


def test_a_client_that_leaves_disturbs_nobody(server, truth):
    room = min(server.info.get("max_context", truth.max_context), 512)
    no_end = truth.endless
    leaving = [
        Underway(server, generate(1, truth.prompt(9, i), max_tokens=room - 20, logit_bias=no_end)) for i in range(3)
    ]
    asked = generate(1, truth.prompt(20), max_tokens=20, top_logprobs=3)
    staying = Underway(server, asked)
    for one in leaving:
        one.wait_for(1)
        one.leave()
    truth.check(asked, staying.answers())
    truth.check(asked, server.send(asked))


@pytest.mark.features("cancel")
def test_a_cancel_in_mid_prompt_disturbs_nobody(server, truth):
    """Prompts as long as the context allows are cancelled while they are being read, or wait for it."""
    room = min(server.info.get("max_context", truth.max_context), 512)
    long = [
        extended(
            generate(i, truth.prompt(room - 8, i), logit_bias=truth.endless),
            cancel_key=f"mid-{i}",
        )
        for i in range(4)
    ]
    asked = generate(9, truth.prompt(20), max_tokens=9, top_logprobs=3)
    running = [Underway(server, one) for one in long]
    beside = Underway(server, asked)
    for i, one in enumerate(running):
        while one.is_alive():
            server.send(["CANCEL", {"lmtp": "1.1", "cancel_key": f"mid-{i}", "stream_id": 1}])
        answers = one.answers()
        assert answers.end(i)["finish_reason"] in ("cancelled", "length")
        if answers.of(i, 0) and answers.end(i)["finish_reason"] == "length":
            truth.check(long[i], answers, 0)
    truth.check(asked, beside.answers())
    again = generate(1, long[1][1]["prompt"], max_tokens=2, top_logprobs=2)
    truth.check(again, server.send(again))


SCRIPTS = {
    "Latin": "Zoë naïvely ate crème brûlée — «très bon»!",
    "Japanese": "日本の寿司 🍣 はおいしい。",
    "Hebrew, right to left": "\u202e\u05e2\u05d1\u05e8\u05d9\u05ea\u202c",
    "combined": "e\u0301 👩\u200d👩\u200d👧",
    "the last of all": "\U0010ffff\ufffd\x00\x7f",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_text_of_all_scripts(server, truth, script):
    ids = truth.encode(SCRIPTS[script])
    asked = generate(1, ids, max_tokens=6, top_logprobs=3)
    truth.check(asked, server.send(asked))
    scored = score(1, ids[:4], ids[4:])
    truth.check(scored, server.send(scored))
