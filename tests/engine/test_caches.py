"""Logits and caches that leave the engine, and come back: equal to plain transformers', and nobody else's."""

import pytest
import torch
from transformers import Gemma2Config, GPT2Config, MambaConfig

from cogsmith.engine import cache_file
from cogsmith.engine.request import Cache, ComputedEvent, ForwardRequest, GenerateRequest
from cogsmith.errors import RequestError

from .models import SHAPE, Stream, engine_over, plain_logprobs, random_model, run, tiny_llama

TOLERANCE = 1e-4
PROMPT = tuple(range(5, 60))
BACK_ENDS = ("packed", "padded", "solo", "padded_unchunked", "solo_unchunked")


class Answer(Stream):
    """A sink for one ComputedEvent."""

    def __call__(self, events):
        super().__call__(events)
        self._ended.set()


def forward(engine, *requests):
    streams = [Answer() for _ in requests]
    for request, stream in zip(requests, streams, strict=True):
        engine.submit(request, stream)
    answers = [stream.result()[-1] for stream in streams]
    assert all(isinstance(answer, ComputedEvent) for answer in answers), answers
    return answers


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(params=BACK_ENDS, scope="module")
def engine(request, model):
    engine = engine_over(model, back_ends=(request.param,), max_batch_size=4)
    assert engine.info.details["runner"] == request.param
    yield engine
    engine.close()


@torch.no_grad()
def plain(model, ids):
    return model(torch.tensor([ids]), use_cache=True)


def test_logits_are_plain_transformers(model, engine):
    requests = [
        ForwardRequest(PROMPT, num_logits=len(PROMPT)),
        ForwardRequest(PROMPT[:7], (9, 8)),
        ForwardRequest((3,)),
    ]
    for request, answer in zip(requests, forward(engine, *requests), strict=True):
        expected = plain(model, [*request.prompt, *request.following]).logits[0, -request.num_logits :]
        assert answer.logits.shape == expected.shape
        assert answer.cache is None
        torch.testing.assert_close(torch.from_numpy(answer.logits), expected, atol=TOLERANCE, rtol=0)


def test_a_cache_is_plain_transformers(model, engine):
    (answer,) = forward(engine, ForwardRequest(PROMPT, (7, 8), keeps_cache=True))
    expected = plain(model, [*PROMPT, 7, 8]).past_key_values
    assert (answer.cache.tokens, answer.cache.num_tokens) == ((*PROMPT, 7, 8), len(PROMPT) + 2)
    for index, layer in enumerate(expected.layers):
        for given, made in zip(answer.cache.layers[index], (layer.keys[0], layer.values[0]), strict=True):
            torch.testing.assert_close(given, made, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("more", [(), (1,), (1, 2, 3)], ids=len)
def test_what_goes_on_from_a_cache_is_what_begins_anew(model, engine, more):
    (answer,) = forward(engine, ForwardRequest(PROMPT, keeps_cache=True))
    prompt = (*PROMPT, *more)
    with counting(engine) as counted:
        begun, beside = run(
            engine, GenerateRequest(prompt, 6, cache=answer.cache), GenerateRequest((4, *PROMPT), 6, use_cache=False)
        )
    check(model, prompt, begun)
    check(model, (4, *PROMPT), beside)
    cached = min(len(PROMPT), len(prompt) - 1)
    assert counted.num_run == len(prompt) - cached + 5 + len(PROMPT) + 1 + 5


def test_of_a_cache_only_what_the_prompt_begins_with_is_used(model, engine):
    (answer,) = forward(engine, ForwardRequest(PROMPT, keeps_cache=True))
    prompt = (*PROMPT[:20], 3, 4)
    (events,) = run(engine, GenerateRequest(prompt, 6, cache=answer.cache))
    check(model, prompt, events)
    (again,) = forward(engine, ForwardRequest(prompt, (8,), num_logits=2, keeps_cache=True, cache=answer.cache))
    expected = plain(model, [*prompt, 8])
    torch.testing.assert_close(torch.from_numpy(again.logits), expected.logits[0, -2:], atol=TOLERANCE, rtol=0)
    keys = expected.past_key_values.layers[0].keys[0]
    torch.testing.assert_close(again.cache.layers[0][0], keys, atol=TOLERANCE, rtol=0)


def test_what_came_from_outside_is_nobody_elses(model):
    """A cache is what its sender says, which need not be what the model computes."""
    engine = engine_over(model, max_batch_size=4)
    (answer,) = forward(engine, ForwardRequest(PROMPT, keeps_cache=True))
    wrong = Cache(PROMPT, len(PROMPT), {i: (k + 1, v - 1) for i, (k, v) in answer.cache.layers.items()})
    engine.close()
    engine = engine_over(model, max_batch_size=4)
    spoiled, own = run(engine, GenerateRequest((*PROMPT, 3), 8, cache=wrong), GenerateRequest((*PROMPT, 3), 8))
    (later,) = run(engine, GenerateRequest((*PROMPT, 3, 4), 8))
    check(model, (*PROMPT, 3), own)
    check(model, (*PROMPT, 3, 4), later)
    with pytest.raises(AssertionError):
        check(model, (*PROMPT, 3), spoiled)
    engine.close()


def test_no_room_is_lost_with_caches(model):
    engine = engine_over(model, max_batch_size=2, kv_cache_bytes=3 * 16 * 128 * 12)
    memory = engine._stepper.scheduler.memory
    (answer,) = forward(engine, ForwardRequest(PROMPT, keeps_cache=True))
    for _ in range(20):
        for events in run(engine, *[GenerateRequest(PROMPT, 40, cache=answer.cache) for _ in range(3)]):
            check(model, PROMPT, events)
    known = set(memory._tree.pages())
    assert sorted([*known, *memory._free]) == list(range(memory.num_pages))
    engine.close()


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=199, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=None),
        Gemma2Config(**SHAPE | {"num_hidden_layers": 2}, head_dim=8, sliding_window=16),
    ],
    ids=["gpt2", "gemma2"],
)
def test_other_families_go_on_from_their_caches(config):
    model = random_model(config)
    engine = engine_over(model)
    (answer,) = forward(engine, ForwardRequest(PROMPT, keeps_cache=True))
    (events,) = run(engine, GenerateRequest((*PROMPT, 3), 6, cache=answer.cache))
    check(model, (*PROMPT, 3), events)
    engine.close()


def test_a_state_is_no_cache_to_give_out():
    model = random_model(
        MambaConfig(vocab_size=199, hidden_size=32, num_hidden_layers=2, state_size=8, eos_token_id=None)
    )
    engine = engine_over(model)
    assert engine.info.details["caches"] is False
    with pytest.raises(RequestError, match="no plain keys and values"):
        engine.submit(ForwardRequest(PROMPT, keeps_cache=True), Answer())
    (answer,) = forward(engine, ForwardRequest(PROMPT, num_logits=3))
    expected = plain_logprobs(model, PROMPT)[-3:]
    torch.testing.assert_close(torch.from_numpy(answer.logits).log_softmax(-1), expected, atol=TOLERANCE, rtol=0)
    engine.close()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ForwardRequest(PROMPT, num_logits=0), "after 0 tokens"),
        (ForwardRequest(PROMPT, num_logits=56), "after 56 tokens .* 55 such"),
        (ForwardRequest(PROMPT * 3), "165 tokens, more than the context of 128"),
        (ForwardRequest((), ()), "has 0 such tokens"),
        (ForwardRequest(PROMPT, (199,)), r"following\[0\] is 199"),
    ],
)
def test_what_cannot_be_is_refused_at_once(engine, request_, message):
    with pytest.raises(RequestError, match=message):
        engine.submit(request_, Answer())


def test_a_cache_of_another_shape_is_refused(engine):
    layers = {index: (torch.zeros(2, 4, 8), torch.zeros(2, 4, 8)) for index in range(3)}
    for wrong, message in (
        ({0: layers[0]}, "1 layers, and this one has 3"),
        (layers | {1: (torch.zeros(2, 4, 9), torch.zeros(2, 4, 8))}, r"layer 1 .* \(2, 4, 9\)"),
        (layers | {2: (torch.zeros(2, 4, 8).half(), torch.zeros(2, 4, 8))}, "layer 2 .*float16"),
    ):
        with pytest.raises(RequestError, match=message):
            engine.submit(GenerateRequest((1, 2, 3, 4, 5), 4, cache=Cache((1, 2, 3, 4), 4, wrong)), Stream())


def test_a_file_holds_all_of_a_cache(engine, tmp_path):
    (answer,) = forward(engine, ForwardRequest(PROMPT, (7,), keeps_cache=True))
    cache = Cache((*PROMPT, 7, 8), answer.cache.num_tokens, answer.cache.layers)
    (tmp_path / "cache").write_bytes(cache_file.to_bytes(cache, "this"))
    read = cache_file.read(tmp_path / "cache", "this")
    assert (read.tokens, read.num_tokens, read.layers.keys()) == (cache.tokens, cache.num_tokens, cache.layers.keys())
    for index in cache.layers:
        assert all(map(torch.equal, read.layers[index], cache.layers[index]))
    with pytest.raises(RequestError, match="of another model"):
        cache_file.read(tmp_path / "cache", "that")


def check(model, prompt, events):
    """Greedy tokens and their log-probabilities are those of a plain pass."""
    ids = [*prompt, *(event.token for event in events)]
    expected = plain_logprobs(model, ids)
    for position, event in enumerate(events, start=len(prompt)):
        assert event.token == expected[position - 1].argmax()
        assert event.logprob == pytest.approx(expected[position - 1, event.token].item(), abs=TOLERANCE)


class counting:
    """Counts the tokens that an engine's back-end runs meanwhile."""

    def __init__(self, engine):
        self._runner = engine._stepper._runner
        self.num_run = 0

    def __enter__(self):
        run = self._runner.forward

        def counted(chunks):
            self.num_run += sum(len(chunk.tokens) for chunk in chunks)
            return run(chunks)

        self._runner.forward = counted
        return self

    def __exit__(self, *exception):
        del self._runner.forward
