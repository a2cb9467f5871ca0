"""The engine over vLLM, run for real on a CPU: what the conformance suite, which runs on it too, does not reach.

Prompts are computed in chunks and the cache is too small for all rows, so that rows lose their place and begin anew.
"""

import random
import threading
import time

import pytest

pytest.importorskip("vllm")

from transformers import AutoModelForCausalLM

from cogsmith.engine.request import Constraint, FailedEvent, GenerateRequest, Sampling, ScoreRequest
from cogsmith.engine.vllm.open import open_vllm
from cogsmith.errors import RequestError, UserError
from cogsmith.manifest import Limits

from ...conformance import checkpoint
from ..models import Stream, plain_logprobs, run

TOLERANCE = 1e-4
BATCH = 4
BLOCK = 32
CHUNK = 48
CACHE_BYTES = 18 * BLOCK * 2048
"""Pages for a text as long as the context, and little more: a token takes 2 KiB."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoint.write(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval().float()


@pytest.fixture(scope="module")
def engine(folder):
    options = {"block_size": BLOCK, "max_num_batched_tokens": CHUNK}
    limits = Limits(max_batch_size=BATCH, max_queue=3, kv_cache_bytes=CACHE_BYTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
        engine, _ = open_vllm(folder, {"dtype": "float32"}, options, limits, name="tiny")
    yield engine
    engine.close()


def prompt(length, seed=0):
    draw = random.Random(seed)
    return tuple(draw.randrange(199) for _ in range(length))


def check_sampled(model, request, events):
    """Every number that of a plain forward pass, whatever was drawn."""
    assert not isinstance(events[-1], FailedEvent), events[-1]
    plain = plain_logprobs(model, [*request.prompt, *(event.token for event in events)])
    for step, event in enumerate(events):
        row = plain[len(request.prompt) + step - 1]
        for token, logprob in {event.token: event.logprob, **event.top_logprobs}.items():
            assert logprob == pytest.approx(row[token].item(), abs=TOLERANCE)


def test_rows_that_lose_their_place_go_on_with_the_same_draws(model, engine):
    """Four texts of 330 tokens and more do not fit into 576; each keeps its seed's tokens, drawn alone before."""
    no_ends = {token: -1000.0 for token in engine.info.eos_ids}
    requests = [
        GenerateRequest(prompt(60 + i, i), 270, Sampling(1.0, seed=i, presence_penalty=0.5), no_ends, 2)
        for i in range(4)
    ]
    assert engine.info.details["kv_cache_tokens"] < 4 * 330
    alone = [run(engine, request)[0] for request in requests]
    together = run(engine, *requests)
    for one, among in zip(alone, together, strict=True):
        assert len(one) == 270
        assert [event.token for event in among] == [event.token for event in one]


def test_a_prompt_in_chunks_draws_as_one_in_a_piece(model, engine):
    """What is drawn after half a prompt is dropped, and takes none of the stream's numbers."""
    request = GenerateRequest(prompt(5 * CHUNK), 20, Sampling(1.0, seed=3), top_logprobs=4)
    (first,), (again,) = run(engine, request), run(engine, request)
    check_sampled(model, request, first)
    assert [event.token for event in again] == [event.token for event in first]


@pytest.mark.parametrize(("num_prompt", "num_scored"), [(0, 1), (0, 100), (1, 7), (40, 16), (40, 300), (300, 212)])
def test_a_score_in_pieces_equals_a_plain_forward(model, engine, num_prompt, num_scored):
    ids = prompt(num_prompt + num_scored, seed=9)
    request = ScoreRequest(ids[:num_prompt], ids[num_prompt:], 3, (5,))
    (events,) = run(engine, request)
    plain = plain_logprobs(model, ids)
    assert [event.token for event in events] == list(request.scored)
    for place, event in enumerate(events[num_prompt == 0 :], start=max(1, num_prompt)):
        expected = plain[place - 1]
        for token, logprob in {event.token: event.logprob, **event.top_logprobs, **event.logprobs}.items():
            assert logprob == pytest.approx(expected[token].item(), abs=TOLERANCE)
        assert len(event.top_logprobs) in (3, 4)
    assert [event.finish_reason for event in events] == [None] * (num_scored - 1) + ["stop"]


def test_end_tokens_are_scored_like_others(engine):
    ends = tuple(sorted(engine.info.eos_ids))
    (events,) = run(engine, ScoreRequest((1, 2), ends * 4))
    assert [event.token for event in events] == list(ends * 4)


def test_a_cancelled_stream_ends_and_frees_its_row(engine):
    streams = [Stream() for _ in range(BATCH)]
    no_ends = {token: -1000.0 for token in engine.info.eos_ids}
    handles = [engine.submit(GenerateRequest((1, 2), 400, bias=no_ends), stream) for stream in streams]
    for stream in streams:
        stream.wait_for(2)
    for handle in handles:
        handle.cancel()
        handle.cancel()
    (events,) = run(engine, GenerateRequest((1, 2), 5, bias=no_ends))
    assert len(events) == 5
    assert all(len(stream.events) < 400 for stream in streams)


def test_a_full_queue_refuses_the_next(engine):
    no_ends = {token: -1000.0 for token in engine.info.eos_ids}
    handles = [engine.submit(GenerateRequest((1, 2), 400, bias=no_ends), Stream()) for _ in range(BATCH + 3)]
    with pytest.raises(RequestError, match="the queue is full"):
        engine.submit(GenerateRequest((1, 2), 5), Stream())
    for handle in handles:
        handle.cancel()


def test_clients_take_turns(engine):
    """The second client's first request overtakes what the first one has waiting."""
    ended, lock = [], threading.Lock()

    def sink(name):
        def take(events):
            if events[-1].finish_reason is not None:
                with lock:
                    ended.append(name)

        return take

    no_ends = {token: -1000.0 for token in engine.info.eos_ids}
    wait_until(lambda: not engine._num_present)
    for number in range(BATCH + 2):
        engine.submit(GenerateRequest((1, number), 30, bias=no_ends), sink("first"), client=1)
    engine.submit(GenerateRequest((3, 4), 30, bias=no_ends), sink("second"), client=2)
    wait_until(lambda: len(ended) == BATCH + 3)
    assert ended[-1] == "first"


def wait_until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("this took too long")


def test_a_sink_that_raises_ends_its_own_stream_only(engine):
    def broken(events):
        raise ValueError("the client's side is broken")

    engine.submit(GenerateRequest((1, 2), 50), broken)
    (events,) = run(engine, GenerateRequest((1, 2, 3), 5, bias={token: -1000.0 for token in engine.info.eos_ids}))
    assert len(events) == 5
    wait_until(lambda: not engine._num_present)


def test_a_constraint_and_a_stream_beside_it(model, engine):
    constrained = GenerateRequest(prompt(20), 40, constraint=Constraint("regex", "(yes|no), [0-9]{3} times"))
    free = GenerateRequest(prompt(21), 40, Sampling(1.0, seed=1), top_logprobs=2)
    events, others = run(engine, constrained, free)
    text = bytes(ord(piece) for piece in map(chr, [event.token for event in events]) if ord(piece) < 256)
    assert events[-1].finish_reason == "stop"
    assert len(text) >= len("no, 123 times")
    check_sampled(model, free, others)


def test_a_constraint_that_is_none_is_refused_at_once(engine):
    with pytest.raises(RequestError, match=r"constraint\.regex"):
        engine.submit(GenerateRequest((1,), 5, constraint=Constraint("regex", "(")), Stream())


def test_an_option_that_vllm_has_not_is_named_before_it_starts(folder):
    with pytest.raises(UserError, match="tensor_paralel_size") as caught:
        open_vllm(folder, {}, {"tensor_paralel_size": 2}, Limits(), name="tiny")
    assert "tensor_parallel_size" in caught.value.fix


def test_what_runs_is_described(engine):
    info = engine.info
    assert (info.engine, info.dtype, info.device, info.max_context) == ("vllm", "float32", "cpu", checkpoint.CONTEXT)
    assert info.head_size > info.vocab_size
    assert info.details["vllm"]
    assert engine.healthy()


def test_when_a_process_of_vllm_dies_all_streams_are_told(engine):
    """The last test: nothing can run on this engine after it."""
    import psutil

    streams = [Stream() for _ in range(BATCH + 1)]
    for stream in streams:
        engine.submit(GenerateRequest((1, 2), 400, bias={token: -1000.0 for token in engine.info.eos_ids}), stream)
    streams[0].wait_for(2)
    workers = [child for child in psutil.Process().children(recursive=True) if "Worker" in " ".join(child.cmdline())]
    assert workers
    for worker in workers:
        worker.kill()
    for stream in streams:
        assert isinstance(stream.result()[-1], FailedEvent)
    wait_until(lambda: not engine.healthy())
