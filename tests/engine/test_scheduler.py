import pytest

from cogsmith.engine.request import GenerateRequest, ScoreRequest
from cogsmith.engine.scheduler import Scheduler
from cogsmith.engine.sequence import Sequence


def sequence(num_prompt=5, *, num_computed=0, num_scored=0):
    prompt = tuple(range(num_prompt))
    request = ScoreRequest(prompt, tuple(range(num_scored))) if num_scored else GenerateRequest(prompt)
    made = Sequence.of(request, lambda events: None)
    made.num_computed = num_computed
    return made


def scheduler_with(*sequences, max_rows=4, budget=10):
    scheduler = Scheduler(max_rows, budget)
    for item in sequences:
        scheduler.add(item)
    return scheduler


def dealt(scheduler):
    return [(chunk.sequence, chunk.tokens) for chunk in scheduler.schedule()]


def test_an_idle_scheduler_deals_nothing():
    scheduler = scheduler_with()
    assert scheduler.idle
    assert scheduler.schedule() == []


def test_a_short_prompt_is_one_chunk_that_wants_the_last_logits():
    only = sequence(3)
    (chunk,) = scheduler_with(only).schedule()
    assert (chunk.tokens, chunk.num_wanted) == ([0, 1, 2], 1)


def test_a_long_prompt_comes_in_chunks_of_the_budget_and_wants_nothing_before_its_end():
    long = sequence(25)
    scheduler = scheduler_with(long)
    seen = []
    while long.num_uncomputed:
        (chunk,) = scheduler.schedule()
        seen.append((len(chunk.tokens), chunk.num_wanted))
        long.num_computed += chunk.num_tokens
    assert seen == [(10, 0), (10, 0), (5, 1)]


def test_however_many_rows_decode_a_prompt_advances_beside_them():
    decoding = [sequence(4, num_computed=3) for _ in range(30)]
    prompt = sequence(50)
    assert [len(tokens) for _, tokens in dealt(scheduler_with(prompt, *decoding, max_rows=40))] == [1] * 30 + [10]


def test_the_oldest_prompt_gets_half_and_the_shortest_the_rest():
    oldest, long, short = sequence(50), sequence(40), sequence(3)
    scheduler = scheduler_with(oldest, long, short)
    assert [(item, len(tokens)) for item, tokens in dealt(scheduler)] == [(oldest, 5), (short, 3), (long, 2)]


@pytest.mark.parametrize("budget", range(4, 12))
def test_no_prompt_is_cut_to_a_single_token_and_all_come_to_their_end(budget):
    """A single token behind others says that its row decodes."""
    prompts = [sequence(size) for size in (17, 2, 30, 9)]
    scheduler = scheduler_with(*prompts, budget=budget)
    while any(prompt.num_uncomputed > 1 for prompt in prompts):
        for chunk in scheduler.schedule():
            assert chunk.num_tokens > 1 or chunk.sequence.num_uncomputed == 1
            if chunk.num_tokens > 1:
                chunk.sequence.num_computed += chunk.num_tokens


def test_no_more_rows_run_than_allowed_and_the_first_come_first():
    sequences = [sequence(2) for _ in range(6)]
    scheduler = scheduler_with(*sequences, max_rows=4, budget=100)
    assert [item for item, _ in dealt(scheduler)] == sequences[:4]
    scheduler.remove(sequences[1])
    assert [item for item, _ in dealt(scheduler)] == [sequences[0], sequences[2], sequences[3], sequences[4]]


def test_a_cancelled_sequence_is_found_whether_it_waits_or_runs():
    sequences = [sequence(2) for _ in range(3)]
    scheduler = scheduler_with(*sequences, max_rows=1)
    scheduler.schedule()
    sequences[0].cancelled = sequences[2].cancelled = True
    assert scheduler.cancelled() == [sequences[0], sequences[2]]
    for item in scheduler.cancelled():
        scheduler.remove(item)
    assert [item for item, _ in dealt(scheduler)] == [sequences[1]]


def test_scoring_wants_the_logits_before_each_scored_token_and_never_runs_the_last_one():
    scored = sequence(4, num_scored=3)
    (chunk,) = scheduler_with(scored).schedule()
    assert chunk.num_tokens == 6
    assert chunk.num_wanted == 3


def test_scoring_after_an_empty_prompt_wants_every_position():
    (chunk,) = scheduler_with(sequence(0, num_scored=4)).schedule()
    assert chunk.num_wanted == 3
