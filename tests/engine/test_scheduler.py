import pytest

from cogsmith.engine.kv.memory import KVMemory
from cogsmith.engine.request import GenerateRequest, ScoreRequest
from cogsmith.engine.scheduler import Scheduler
from cogsmith.engine.sequence import Sequence


def sequence(num_prompt=5, *, num_scored=0, prompt=None, client=None):
    prompt = tuple(range(num_prompt) if prompt is None else prompt)
    request = ScoreRequest(prompt, tuple(range(num_scored))) if num_scored else GenerateRequest(prompt)
    made = Sequence.of(request, lambda events: None)
    made.client = client
    return made


def scheduler_with(*sequences, max_rows=4, budget=10, num_pages=1000, page_size=4, shares=False, max_logits=512):
    memory = KVMemory(num_pages, page_size=page_size, shares=shares)
    scheduler = Scheduler(memory, max_rows, budget, max_logits)
    for item in sequences:
        scheduler.add(item)
    return scheduler


def step(scheduler, *, token=99):
    """Schedule, and do as if it were computed: each whose last logits came gets a token. Returns the chunks."""
    chunks = scheduler.schedule()
    scheduler.advance(chunks)
    for chunk in chunks:
        if isinstance(chunk.sequence.request, ScoreRequest):
            chunk.sequence.num_answered += chunk.num_wanted
        elif chunk.num_wanted:
            chunk.sequence.append(token)
    return chunks


def ran(chunks):
    """Which sequences a step ran, and how many tokens of each."""
    return {chunk.sequence: chunk.num_tokens for chunk in chunks}


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
        scheduler.advance([chunk])
    assert seen == [(10, 0), (10, 0), (5, 1)]


def test_however_many_rows_decode_a_prompt_advances_beside_them():
    decoding = [sequence(1) for _ in range(30)]
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
                scheduler.advance([chunk])


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


def test_scores_are_cut_where_a_step_would_hold_too_many_logits():
    scored = sequence(4, num_scored=20)
    scheduler = scheduler_with(scored, budget=100, max_logits=6)
    sizes = []
    while scored.num_uncomputed:
        (chunk,) = step(scheduler)
        sizes.append((chunk.num_tokens, chunk.num_wanted))
    assert sizes == [(9, 6), (6, 6), (6, 6), (2, 2)]


def test_tokens_that_were_forced_run_at_once_beside_any_prompt():
    forced, prompt = sequence(3), sequence(50)
    scheduler = scheduler_with(forced, prompt, budget=8)
    while not forced.generated:
        step(scheduler)
    for token in range(20):
        forced.append(token)
    chunks = ran(scheduler.schedule())
    assert chunks[forced] == 21
    assert chunks[prompt] == 8


def test_a_client_with_many_requests_holds_no_other_up():
    many = [sequence(2, client="many") for _ in range(20)]
    few = [sequence(2, client="few") for _ in range(2)]
    scheduler = scheduler_with(*many, *few, max_rows=4, budget=100)
    assert set(ran(step(scheduler))) == {many[0], few[0], many[1], few[1]}


def test_a_prompt_that_another_is_computing_is_not_computed_again():
    first = sequence(prompt=range(40))
    second = sequence(prompt=[*range(39), 77, 78])
    unlike = sequence(prompt=range(100, 120))
    scheduler = scheduler_with(first, second, unlike, budget=16, shares=True)
    total = dict.fromkeys((first, second, unlike), 0)
    while not (first.generated and second.generated and unlike.generated):
        for item, count in ran(step(scheduler)).items():
            total[item] += 0 if item.num_generated > 1 else count
    assert total[first] == 40
    assert total[second] == 2
    assert total[unlike] == 20


def test_one_that_waits_for_a_prompt_goes_on_alone_when_that_is_cancelled():
    first, second = sequence(prompt=range(40)), sequence(prompt=range(41))
    scheduler = scheduler_with(first, second, budget=16, shares=True)
    assert set(ran(step(scheduler))) == {first}
    scheduler.remove(first)
    # The 16 that were computed are known.
    assert ran(step(scheduler)) == {second: 16}
    assert second.num_computed == 32


def test_scores_over_one_prompt_compute_it_once():
    scores = [
        Sequence.of(ScoreRequest(tuple(range(32)), (50 + i, 60 + i, 70 + i)), lambda events: None) for i in range(4)
    ]
    scheduler = scheduler_with(*scores, budget=100, shares=True)
    assert ran(step(scheduler)) == {scores[0]: 34}
    # The prompt's last token is run again: the logits after it are wanted.
    assert ran(step(scheduler)) == {item: 3 for item in scores[1:]}


def test_when_memory_runs_out_the_youngest_waits_and_comes_to_its_end():
    sequences = [sequence(prompt=range(100 * i, 100 * i + 8)) for i in range(3)]
    scheduler = scheduler_with(*sequences, budget=100, num_pages=8, shares=True)
    most_running, preempted = 0, []
    for _ in range(200):
        step(scheduler)
        preempted += scheduler.preempted
        most_running = max(most_running, len(scheduler.running))
        for item in [item for item in sequences if item.num_generated >= 20 and not item.cancelled]:
            item.cancelled = True
            scheduler.remove(item)
        if scheduler.idle:
            break
    assert [item.num_generated for item in sequences] == [20, 20, 20]
    assert most_running == 3
    assert sequences[2] in preempted
    assert sequences[0] not in preempted


def test_a_score_that_lost_its_row_is_not_answered_twice():
    old = sequence(prompt=range(8))
    scored = sequence(prompt=range(100, 104), num_scored=30)
    scheduler = scheduler_with(old, scored, budget=8, num_pages=11, shares=True)
    answered, preempted = 0, []
    for _ in range(300):
        for chunk in step(scheduler):
            answered += chunk.num_wanted if chunk.sequence is scored else 0
        preempted += scheduler.preempted
        if old in scheduler.running and old.num_generated > 30:
            scheduler.remove(old)
        if not scored.num_uncomputed:
            break
    assert scored in preempted
    assert answered == 30
    assert not scored.num_uncomputed
