"""Hard masks, least lengths and chosen ids, against plain forward passes."""

import math

import pytest
import torch

from cogsmith.engine.request import FailedEvent, GenerateRequest, Sampling, ScoreRequest
from cogsmith.errors import RequestError

from .models import VOCAB, Stream, engine_over, held, plain_logprobs, run, tiny_llama

EVERYTHING = frozenset(range(VOCAB))


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def engine(model):
    engine = engine_over(model)
    yield engine
    engine.close()


def bits(*ids):
    """A bitset, made another way than the code under test does."""
    return sum(1 << i for i in ids).to_bytes(max(ids) // 8 + 1, "little")


def masked_truth(plain, allowed):
    """The distribution renormalised over `allowed`."""
    kept = torch.full_like(plain, -torch.inf)
    kept[:, sorted(allowed)] = plain[:, sorted(allowed)]
    return torch.log_softmax(kept, dim=-1)


@pytest.mark.parametrize("allowed", [{7}, {3, 50, 198}, set(range(0, VOCAB, 2)), EVERYTHING])
def test_only_allowed_ids_are_drawn_and_the_numbers_are_normalised_over_them(model, engine, allowed):
    prompt = (1, 2, 3)
    (events,) = run(engine, GenerateRequest(prompt, 6, top_logprobs=VOCAB, allow=bits(*allowed)))
    tokens = [event.token for event in events]
    truth = masked_truth(plain_logprobs(model, [*prompt, *tokens]), allowed)[len(prompt) - 1 :]
    for event, row in zip(events, truth, strict=False):
        assert event.token == row.argmax()
        assert event.top_logprobs.keys() == allowed
        assert event.top_logprobs == pytest.approx({i: row[i].item() for i in allowed}, abs=1e-4)
        assert sum(map(math.exp, event.top_logprobs.values())) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("sampling", [{}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 1e-300}])
def test_a_mask_holds_at_any_temperature(engine, sampling):
    """Also where top_k and top_p reach beyond the mask."""
    settings = Sampling(**{"temperature": 50.0, "seed": 3, **sampling})
    (events,) = run(engine, GenerateRequest((1, 2), 60, settings, allow=bits(10, 20, 30)))
    assert {event.token for event in events} <= {10, 20, 30}


def test_the_bias_works_within_the_mask(model, engine):
    (events,) = run(engine, GenerateRequest((1,), 1, bias={4: 3.0, 9: 100.0}, top_logprobs=5, allow=bits(4, 5)))
    plain = plain_logprobs(model, [1])
    plain[0, 4] += 3.0
    expected = masked_truth(plain, {4, 5})[0]
    assert events[0].top_logprobs == pytest.approx({i: expected[i].item() for i in (4, 5)}, abs=1e-4)


def test_a_bias_against_all_that_is_allowed_does_not_break_the_mask(engine):
    bias = dict.fromkeys((4, 5), -1e300)
    (events,) = run(engine, GenerateRequest((1,), 3, bias=bias, allow=bits(4, 5)))
    assert {event.token for event in events} <= {4, 5}
    assert all(math.isfinite(event.logprob) for event in events)


@pytest.mark.parametrize("allow", [b"", b"\0\0\0", bits(VOCAB), bits(5000)])
def test_a_mask_that_leaves_nothing_is_refused(engine, allow):
    with pytest.raises(RequestError, match="allow holds no id of this model's vocabulary, whose ids are 0 to 198"):
        engine.submit(GenerateRequest((1,), allow=allow), Stream())


def test_ids_beyond_the_vocabulary_in_a_mask_have_no_effect(engine):
    requests = [GenerateRequest((1, 2), 4, top_logprobs=9, allow=bits(5, 6, *extra)) for extra in ((), (VOCAB, 9999))]
    first, second = run(engine, *requests)
    assert [event.token for event in first] == [event.token for event in second]
    assert [event.top_logprobs.keys() for event in first] == [event.top_logprobs.keys() for event in second]
    assert [event.logprob for event in first] == pytest.approx([event.logprob for event in second], abs=1e-5)


def test_a_masked_stream_does_not_change_its_batch_mates(engine):
    plain = GenerateRequest((1, 2, 3), 20, Sampling(temperature=1.5, seed=5))
    (alone,) = run(engine, plain)
    with held(engine):
        streams = [Stream() for _ in range(3)]
        engine.submit(GenerateRequest((1, 2), 20, allow=bits(7, 8)), streams[0])
        engine.submit(plain, streams[1])
        engine.submit(GenerateRequest((4,), 20, min_tokens=20, logprob_ids=(1, 2)), streams[2])
    together = streams[1].result()
    assert [event.token for event in together] == [event.token for event in alone]
    assert [event.logprob for event in together] == pytest.approx([event.logprob for event in alone], abs=1e-4)


@pytest.fixture(scope="module")
def ending():
    """A model that would end every text at once: whatever it is given, its first choice is an end token."""
    model = tiny_llama(eos_token_id=[42, 43])
    engine = engine_over(model)
    yield model, engine
    engine.close()


@pytest.mark.parametrize("least", [0, 1, 5, 9])
def test_the_first_tokens_are_no_end_tokens(ending, least):
    model, engine = ending
    drive = {42: 60.0, 43: 59.0}
    (events,) = run(engine, GenerateRequest((1, 2), 9, bias=drive, min_tokens=least, top_logprobs=VOCAB))
    tokens = [event.token for event in events]
    assert not {42, 43} & set(tokens[:least])
    for event in events[:least]:
        assert event.top_logprobs.keys() == EVERYTHING - {42, 43}
    assert events[-1].finish_reason == ("length" if least == 9 else "stop")
    assert len(events) == (9 if least == 9 else least + 1)
    if least:
        truth = masked_truth(plain_logprobs(model, [1, 2]), EVERYTHING - {42, 43})[-1]
        assert (tokens[0], events[0].logprob) == (truth.argmax(), pytest.approx(truth.max().item(), abs=1e-4))


def test_end_tokens_stay_allowed_where_a_mask_leaves_nothing_else(ending):
    _, engine = ending
    (events,) = run(engine, GenerateRequest((1,), 5, min_tokens=5, allow=bits(42)))
    assert [(event.token, event.finish_reason) for event in events] == [(42, "stop")]


def test_a_mask_and_a_least_length_together(ending):
    _, engine = ending
    request = GenerateRequest((1,), 9, bias={42: 60.0}, min_tokens=3, allow=bits(7, 42), top_logprobs=9)
    (events,) = run(engine, request)
    assert [event.token for event in events] == [7, 7, 7, 42]
    assert [len(event.top_logprobs) for event in events] == [1, 1, 1, 2]
    assert [event.logprob for event in events[:3]] == [0.0] * 3


def test_more_tokens_than_may_come_are_refused(engine):
    with pytest.raises(RequestError, match="min_tokens is 6, more than max_tokens, 5"):
        engine.submit(GenerateRequest((1,), 5, min_tokens=6), Stream())


def test_chosen_ids_come_with_every_token(model, engine):
    wanted = (0, 198, 7, 7)
    asked, bare = run(
        engine, GenerateRequest((1, 2), 4, top_logprobs=0, logprob_ids=wanted), GenerateRequest((1, 2), 4)
    )
    plain = plain_logprobs(model, [1, 2, *(event.token for event in asked)])[1:]
    for event, row in zip(asked, plain, strict=False):
        assert event.logprobs == pytest.approx({i: row[i].item() for i in wanted}, abs=1e-4)
        assert event.top_logprobs.keys() == {event.token}
    assert {event.logprobs for event in bare} == {None}


def test_rows_that_chose_different_numbers_of_ids_share_a_step(model, engine):
    requests = [GenerateRequest((1, 2), 3, logprob_ids=tuple(range(count))) for count in (0, 1, 30)]
    with held(engine):
        streams = [Stream() for _ in requests]
        for request, stream in zip(requests, streams, strict=True):
            engine.submit(request, stream)
    rows = [stream.result() for stream in streams]
    plain = plain_logprobs(model, [1, 2])[1]
    assert rows[0][0].logprobs is None
    for count, events in zip((1, 30), rows[1:], strict=True):
        assert events[0].logprobs == pytest.approx({i: plain[i].item() for i in range(count)}, abs=1e-4)


def test_a_chosen_id_that_a_mask_excludes_is_absent(engine):
    (events,) = run(engine, GenerateRequest((1,), 2, allow=bits(3, 4), logprob_ids=(3, 5)))
    assert [list(event.logprobs) for event in events] == [[3], [3]]


@pytest.mark.parametrize("request_", [GenerateRequest((1,), logprob_ids=(2, 199)), ScoreRequest((1,), (2,), 0, (199,))])
def test_a_chosen_id_that_the_model_does_not_have_is_refused(engine, request_):
    with pytest.raises(RequestError, match=r"logprob_ids\[\d\] is 199"):
        engine.submit(request_, Stream())


def test_scored_tokens_come_with_alternatives_of_the_plain_distribution(model, engine):
    prompt, scored = (1, 2), (198, 0, 77, 5)
    (events,) = run(engine, ScoreRequest(prompt, scored, top_logprobs=3, logprob_ids=(9, 198)))
    plain = plain_logprobs(model, [*prompt, *scored])[1:]
    for event, row in zip(events, plain, strict=False):
        best = {*row.topk(3).indices.tolist(), event.token}
        assert event.top_logprobs == pytest.approx({i: row[i].item() for i in best}, abs=1e-4)
        assert event.logprobs == pytest.approx({i: row[i].item() for i in (9, 198)}, abs=1e-4)
    assert [event.finish_reason for event in events] == [None, None, None, "stop"]


def test_before_the_first_token_of_all_there_are_no_alternatives(model, engine):
    (events,) = run(engine, ScoreRequest((), (5, 6), top_logprobs=2, logprob_ids=(7,)))
    assert (events[0].logprob, events[0].top_logprobs, events[0].logprobs) == (0.0, {5: 0.0}, {})
    assert events[1].logprobs[7] == pytest.approx(plain_logprobs(model, [5])[0, 7].item(), abs=1e-4)


def test_alternatives_without_end_are_refused():
    engine = engine_over(tiny_llama(max_position_embeddings=4096))
    most = 2**18 // VOCAB
    with pytest.raises(RequestError, match="top_logprobs for"):
        engine.submit(ScoreRequest((1,), (2,) * (most + 1), top_logprobs=10**9), Stream())
    engine.close()


def test_a_model_that_gives_nan_is_found_out_behind_a_mask(model):
    engine = engine_over(model)
    hook = model.lm_head.register_forward_hook(lambda module, args, logits: torch.full_like(logits, float("nan")))
    try:
        (events,) = run(engine, GenerateRequest((1, 2), 4, allow=bits(1, 2), logprob_ids=(1, 9)))
        assert isinstance(events[-1], FailedEvent)
    finally:
        hook.remove()
        engine.close()
