"""The packed rows on whichever kernels: against plain forward passes, whatever shares a step."""

import random

import pytest
import torch
import transformers

from cogsmith.engine.rows.attention import during
from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.graphs import DecodeGraphs
from cogsmith.engine.rows.grouped import GroupedStep
from cogsmith.engine.rows.packed import PackedRunner, paged_layers
from cogsmith.engine.rows.plan import Plan
from cogsmith.engine.rows.pool import Pool
from cogsmith.engine.rows.runner import RowChunk
from cogsmith.engine.rows.varlen import VarlenStep, lines_of

from ..models import SHAPE, VOCAB, plain_logprobs, random_model, tiny_llama
from . import recorded

PAGE = 8
COMMON = {**SHAPE, "num_hidden_layers": 2}
MODELS = {
    "grouped heads": lambda: tiny_llama(),
    "one head for each": lambda: tiny_llama(num_key_value_heads=4),
    "one head for all": lambda: tiny_llama(num_key_value_heads=1),
    "window": lambda: random_model(transformers.MistralConfig(**COMMON, sliding_window=11)),
    "sinks and windows": lambda: random_model(
        transformers.GptOssConfig(**COMMON, head_dim=8, sliding_window=9, num_local_experts=4, num_experts_per_tok=2)
    ),
}
CAPPED = {"soft cap": lambda: random_model(transformers.Gemma2Config(**COMMON, head_dim=8, sliding_window=9))}


def by_groups(plan, pool):
    return GroupedStep(plan, pool)


def by_flash(plan, pool):
    return VarlenStep(lines_of(plan), pool)


def reference_varlen(query, key, value, *, cu_seq_q, cu_seq_k, max_q, max_k, return_aux, window_size, **others):
    """What torch documents of `varlen_attn` with pages, row by row: its kernels run on GPUs only."""
    group = query.shape[1] // key.shape[2]
    assert cu_seq_k is None
    assert return_aux.lse
    assert others["enable_gqa"] == (group > 1)
    out, lse = query.new_empty(*query.shape[:2], value.shape[3]), query.new_empty(query.shape[:2])
    for row, length in enumerate(others["seqused_k"].tolist()):
        begin, end = cu_seq_q[row : row + 2].tolist()
        assert end - begin <= max_q
        assert length <= max_k
        pages = others["block_table"][row].long()
        keys, values = (store[pages].flatten(0, 1)[:length].repeat_interleave(group, 1) for store in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[begin:end], keys) * others["scale"]
        behind = torch.arange(length - (end - begin), length)[:, None] - torch.arange(length)
        window = window_size[0] if window_size[0] >= 0 else length
        scores = scores.masked_fill((behind < 0) | (behind > window), -torch.inf)
        lse[begin:end] = torch.logsumexp(scores, -1).T
        out[begin:end] = torch.einsum("hqk,khd->qhd", torch.softmax(scores, -1), values)
    return out, lse


@pytest.fixture(params=["groups", "flash"])
def kernel(request, monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference_varlen)
    return by_groups if request.param == "groups" else by_flash


def runner_by(new_step, forward, num_pages):
    return PackedRunner(forward, Pool(paged_layers(forward), num_pages, PAGE, by_heads=new_step is by_groups), new_step)


def runner_by_graphs(_, forward, num_pages):
    pool = Pool(paged_layers(forward), num_pages + 1, PAGE, by_heads=False)
    return PackedRunner(forward, pool, by_flash, DecodeGraphs(forward, pool, 128, num_pages))


@torch.inference_mode()
def logprobs_in_steps(model, texts, new_step, draw, new_runner=runner_by):
    """Run texts in chunks of any size, as many of them at a time as it happens; log-probabilities of each."""
    runner = new_runner(new_step, Forward(model), len(texts) * 16)
    shuffled = draw.sample(range(len(texts) * 16), len(texts) * 16)
    pages = [shuffled[16 * i : 16 * (i + 1)] for i in range(len(texts))]
    done, found = [0] * len(texts), [[] for _ in texts]
    while any(begun < len(text) for begun, text in zip(done, texts, strict=True)):
        some = [i for i, text in enumerate(texts) if done[i] < len(text) and draw.random() < 0.7]
        choices = draw.choice([[1], [1, 1, 1, 2, 5, 20]])
        sizes = [min(len(texts[i]) - done[i], draw.choice(choices)) for i in some]
        chunks = [
            RowChunk(i, done[i], texts[i][done[i] : done[i] + size], size, pages[i])
            for i, size in zip(some, sizes, strict=True)
        ]
        if chunks:
            for i, part in zip(some, torch.split(runner.forward(chunks), sizes), strict=True):
                found[i].append(torch.log_softmax(part.float(), -1))
                done[i] += len(part)
    return [torch.cat(parts) for parts in found]


@pytest.mark.parametrize("name", MODELS)
def test_steps_of_any_shape_equal_plain_passes(name, kernel):
    model, draw = MODELS[name](), random.Random(5)
    texts = [[draw.randrange(VOCAB) for _ in range(size)] for size in (1, 3, 70, 40, 33, 8, 9, 100)]
    for text, found in zip(texts, logprobs_in_steps(model, texts, kernel, draw), strict=True):
        assert torch.allclose(found, plain_logprobs(model, text), atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_recorded_steps_equal_plain_passes(name, monkeypatch):
    graphs, kernel = recorded.install(monkeypatch, reference_varlen)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    model, draw = MODELS[name](), random.Random(5)
    texts = [[draw.randrange(VOCAB) for _ in range(size)] for size in (1, 3, 70, 40, 33, 8, 9, 100)]
    found = logprobs_in_steps(model, texts, by_flash, draw, runner_by_graphs)
    assert sum(graph.replays for graph in graphs) > 5
    for text, logprobs in zip(texts, found, strict=True):
        assert torch.allclose(logprobs, plain_logprobs(model, text), atol=1e-4)


def test_a_text_beyond_the_recorded_context_is_run_without_a_graph(monkeypatch):
    graphs, kernel = recorded.install(monkeypatch, reference_varlen)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    model, text = tiny_llama(), [(7 * i) % VOCAB for i in range(140)]
    with torch.inference_mode():
        runner = runner_by_graphs(by_flash, Forward(model), 20)
        chunks = [(0, 126), *((start, start + 1) for start in range(126, 140))]
        parts = [runner.forward([RowChunk(0, a, text[a:b], b - a, range(20))]) for a, b in chunks]
    assert [graph.replays for graph in graphs] == [2]
    assert torch.allclose(torch.log_softmax(torch.cat(parts), -1), plain_logprobs(model, text), atol=1e-4)


@pytest.mark.parametrize("name", CAPPED)
def test_capped_scores_equal_plain_passes(name):
    model, draw = CAPPED[name](), random.Random(5)
    texts = [[draw.randrange(VOCAB) for _ in range(size)] for size in (3, 40, 33, 70)]
    for text, found in zip(texts, logprobs_in_steps(model, texts, by_groups, draw), strict=True):
        assert torch.allclose(found, plain_logprobs(model, text), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["grouped heads", "one head for each", "window"])
def test_rows_behind_one_beginning_equal_plain_passes(name, dtype):
    model, draw = MODELS[name]().to(dtype), random.Random(7)
    forward = Forward(model)
    pool = Pool(paged_layers(forward), 100, PAGE)
    runner = PackedRunner(forward, pool, by_groups)
    stems = [[draw.randrange(VOCAB) for _ in range(size)] for size in (75, 90)]
    cuts = [(0, 72), (0, 72), (0, 64), (1, 88), (1, 80), (0, 0), (1, 72)]
    rows = []
    for number, (stem, cut) in enumerate(cuts):
        own = [draw.randrange(VOCAB) for _ in range(draw.randint(1, 12))]
        begun = 12 * stem
        pages = [*range(begun, begun + cut // PAGE), *range(24 + 8 * number, 32 + 8 * number)]
        rows.append((stems[stem][:cut] + own, cut, pages))
    with torch.inference_mode():
        for stem, text in enumerate(stems):
            runner.forward([RowChunk(100 + stem, 0, text, 0, range(12 * stem, 12 * stem + 12))])
        chunks = [RowChunk(i, cut, text[cut:], len(text) - cut, pages) for i, (text, cut, pages) in enumerate(rows)]
        parts = torch.split(runner.forward(chunks), [len(chunk.tokens) for chunk in chunks])
    tolerance = 1e-4 if dtype == torch.float32 else 0.5
    for (text, cut, _), part in zip(rows, parts, strict=True):
        found = torch.log_softmax(part.float(), -1)
        assert torch.allclose(found, plain_logprobs(model, text)[cut:], atol=tolerance)


def test_another_rows_infinities_stay_in_its_own_row():
    model = tiny_llama()
    forward = Forward(model)
    pool = Pool(paged_layers(forward), 8, PAGE)
    for keys, values in zip(pool.keys.values(), pool.values.values(), strict=True):
        keys[:, [0, 1]] = torch.inf
        values[:, [0, 1]] = torch.nan
    runner = PackedRunner(forward, pool, by_groups)
    text = [5, 6, 7]
    with torch.inference_mode():
        chunks = [RowChunk(0, 8, [9, 9], 2, [0, 1]), RowChunk(1, 0, text, 3, [2])]
        logits = runner.forward(chunks)
    assert not logits[:2].isfinite().all()
    assert torch.allclose(torch.log_softmax(logits[2:], -1), plain_logprobs(model, text), atol=1e-4)


@pytest.mark.parametrize("said", [{"dropout": 0.1}, {"is_causal": False}, {"position_bias": torch.zeros(1)}])
def test_attention_that_is_not_known_is_refused(said):
    forward = Forward(tiny_llama())
    paged_layers(forward)
    function = transformers.AttentionInterface()["cogsmith_pages"]
    states = torch.zeros(1, 4, 2, 8)
    layer = torch.nn.Module()
    layer.layer_idx = 0
    pool = Pool(paged_layers(forward), 1, PAGE)
    step = by_groups(Plan([RowChunk(0, 0, [1, 2], 1, [0])], PAGE, torch.device("cpu")), pool)
    with during(step, forward.config):
        function(layer, states, states[:, :2], states[:, :2], None)
        with pytest.raises(TypeError, match="not known"):
            function(layer, states, states[:, :2], states[:, :2], None, **said)


def test_a_model_is_what_it_was_after_a_step():
    model = tiny_llama()
    before = model.config._attn_implementation
    paged_layers(Forward(model))
    assert model.config._attn_implementation == before
