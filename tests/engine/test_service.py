"""The engine as a server: bad requests, cancels, limits, faults, idleness."""

import threading
import time

import pytest
import torch

from cogsmith.engine.request import FailedEvent, GenerateRequest, ScoreRequest
from cogsmith.errors import RequestError

from .models import Stream, engine_over, held, run, tiny_llama

LONG = GenerateRequest((1, 2, 3), 120)


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture
def engine(model):
    engine = engine_over(model, max_batch_size=2, max_queue=3)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (GenerateRequest(()), "empty"),
        (GenerateRequest((1, 199)), r"prompt\[1\] is 199, and this model's ids are 0 to 198"),
        (GenerateRequest((-1,)), r"prompt\[0\] is -1"),
        (GenerateRequest(tuple([1] * 128)), "128 tokens and leaves no room in a context of 128"),
        (ScoreRequest((1,), ()), "scored is empty"),
        (ScoreRequest((1,), (2, 4000)), r"scored\[1\] is 4000"),
        (ScoreRequest(tuple([1] * 100), tuple([1] * 29)), "129 tokens together"),
    ],
)
def test_a_request_that_can_never_run_is_refused_at_once(engine, request_, words):
    with pytest.raises(RequestError, match=words):
        engine.submit(request_, Stream())


def test_a_limit_on_max_tokens_is_said_before_any_work(model):
    engine = engine_over(model, max_tokens=10)
    with pytest.raises(RequestError, match="max_tokens is 11, and this server grants 10"):
        engine.submit(GenerateRequest((1,), 11), Stream())
    engine.close()


def test_a_full_queue_refuses_the_next_and_serves_the_others(engine):
    accepted, refusals = [], []
    with held(engine):
        for _ in range(9):
            stream = Stream()
            try:
                engine.submit(LONG, stream)
                accepted.append(stream)
            except RequestError as error:
                refusals.append(error.message)
    # The one that holds the engine has one of the two rows.
    assert len(accepted) == 1 + 3
    assert refusals == ["the queue is full (3 operations wait)"] * 5
    for stream in accepted:
        assert len(stream.result()) == 120


def test_an_idle_engine_takes_as_many_at_once_as_it_has_rows_and_places_in_its_queue(model):
    engine = engine_over(model, max_batch_size=32, max_queue=1)
    streams = [Stream() for _ in range(33)]
    for stream in streams:
        engine.submit(GenerateRequest((1, 2, 3), 5), stream)
    assert all(len(stream.result()) == 5 for stream in streams)
    engine.close()


def test_a_bias_that_requests_have_in_common_is_spread_once(engine):
    shared = {5: 100.0}
    requests = [GenerateRequest((1, 2, 3), 2, bias=bias) for bias in (shared, shared, {6: 100.0}, {})]
    streams = [Stream() for _ in requests]
    with held(engine):
        first, second, *_ = [engine.submit(*pair) for pair in zip(requests, streams, strict=True)]
    assert first.rules.later is second.rules.later
    tokens = [[event.token for event in stream.result()] for stream in streams]
    assert tokens[:3] == [[5, 5], [5, 5], [6, 6]]
    assert tokens[3] not in tokens[:3]


def test_a_cancelled_stream_ends_within_a_step_and_others_go_on(engine):
    cancelled, other = Stream(), Stream()
    handle = engine.submit(LONG, cancelled)
    engine.submit(LONG, other)
    cancelled.wait_for(3)
    handle.cancel()
    at_cancel = len(cancelled.events)
    assert len(other.result()) == 120
    assert len(cancelled.events) <= at_cancel + 1


def test_a_stream_cancelled_while_it_waits_never_starts(engine):
    running = [Stream(), Stream()]
    for stream in running:
        engine.submit(LONG, stream)
    waiting = Stream()
    engine.submit(LONG, waiting).cancel()
    for stream in running:
        stream.result()
    run(engine, GenerateRequest((1,), 1))
    assert waiting.events == []


def test_cancelling_twice_or_after_the_end_is_harmless(engine):
    stream = Stream()
    handle = engine.submit(GenerateRequest((1,), 2), stream)
    stream.result()
    handle.cancel()
    handle.cancel()
    assert len(run(engine, GenerateRequest((1,), 2))[0]) == 2


def test_a_fault_in_a_step_ends_the_running_streams_and_the_engine_serves_on(model, engine):
    """A forward pass that raises, as out-of-memory does, in the middle of a generation."""
    streams = [Stream(), Stream()]

    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    def break_after_two(events):
        streams[1](events)
        if len(streams[1].events) == 2:
            model.forward = broken

    original = model.forward
    with held(engine):
        engine.submit(LONG, streams[0])
        engine.submit(LONG, break_after_two)
    try:
        for stream in streams:
            assert stream.result()[-1] == FailedEvent("the engine failed: RuntimeError: out of memory")
            assert 2 <= len(stream.events) < 120
    finally:
        model.forward = original
    assert engine.healthy()
    assert len(run(engine, GenerateRequest((1, 2), 5))[0]) == 5


def test_a_fault_in_freeing_a_cancelled_row_is_a_fault_of_that_step_only(engine, monkeypatch):
    """A row that leaves has the others' cache copied, for which memory may be missing too."""

    def broken(row):
        raise RuntimeError("out of memory")

    other, handles = Stream(), []

    def cancel_after_two(events):
        if len(other.events) == 2:
            monkeypatch.setattr(engine._stepper._runner, "close_row", broken)
            handles[0].cancel()

    with held(engine):
        engine.submit(LONG, other)
        handles.append(engine.submit(LONG, cancel_after_two))
    assert other.result()[-1] == FailedEvent("the engine failed: RuntimeError: out of memory")
    assert len(run(engine, GenerateRequest((1, 2), 5))[0]) == 5
    assert engine.healthy()


def test_a_model_that_gives_nan_ends_the_stream_with_a_reason(model):
    def poison(module, arguments, logits):
        return torch.full_like(logits, float("nan"))

    engine = engine_over(model)
    hook = model.lm_head.register_forward_hook(poison)
    try:
        for events in run(engine, GenerateRequest((1, 2), 4), ScoreRequest((1,), (2, 3))):
            assert isinstance(events[-1], FailedEvent)
            assert "infinite or undefined" in events[-1].message
    finally:
        hook.remove()
        engine.close()


@pytest.mark.parametrize(
    "request_",
    [GenerateRequest((1, 2), 5), ScoreRequest((1,), (2, 3)), ScoreRequest((), (2, 3)), ScoreRequest((), (2,))],
)
def test_a_sink_that_raises_ends_its_own_stream_only(engine, request_):
    def broken(events):
        raise OSError("the client's side is gone")

    other = Stream()
    engine.submit(LONG, other)
    engine.submit(request_, broken)
    assert len(other.result()) == 120
    assert engine.healthy()


def test_a_short_prompt_does_not_wait_for_a_long_one(model):
    """Beside a prompt of many steps, a newcomer's answer is complete before the long one's first token."""
    engine = engine_over(model, max_batch_size=4)
    engine._stepper.scheduler.max_prompt_tokens = 4
    order = []
    long, short = Stream(), Stream()
    with held(engine):
        engine.submit(GenerateRequest(tuple(range(110)), 1), lambda events: (order.append("long"), long(events)))
        engine.submit(GenerateRequest((1, 2, 3), 3), lambda events: (order.append("short"), short(events)))
    long.result()
    assert order == ["short"] * 3 + ["long"]
    engine.close()


def test_closing_ends_every_stream_with_a_reason(model):
    engine = engine_over(model, max_batch_size=1)
    streams = [Stream() for _ in range(3)]

    def stay_until_closing(events):
        streams[0](events)
        while not engine._thread.closing:
            time.sleep(0.001)

    with held(engine):
        for sink in (stay_until_closing, *streams[1:]):
            engine.submit(LONG, sink)
    streams[0].wait_for(1)
    engine.close()
    for stream in streams:
        assert stream.result()[-1] == FailedEvent("the engine is shutting down")
    assert not engine.healthy()
    with pytest.raises(RequestError, match="shutting down"):
        engine.submit(LONG, Stream())


def test_requests_from_many_threads_all_end(engine):
    results = []

    def client(seed):
        while True:
            try:
                results.append(len(run(engine, GenerateRequest((seed,), 6))[0]))
                return
            except RequestError:
                time.sleep(0.005)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(1, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [6] * 24


def test_an_idle_engine_uses_no_cpu(engine):
    run(engine, GenerateRequest((1,), 2))
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05
