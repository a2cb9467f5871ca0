"""Every input of a text prediction, against what plain transformers does with the same prompt."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from tokenizers import processors

from cogsmith.errors import RequestError
from cogsmith.manifest import Prompt
from cogsmith.predictor.inputs import from_run
from cogsmith.predictor.mailbox import Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.prompting import encode
from cogsmith.predictor.text import stream_text
from cogsmith.prompts import templates

from ..engine.models import byte_tokenizer, engine_over, tiny_llama

ORIGINAL = Path(__file__).parents[1] / "prompts/original_templates.json"
TEXT = "Once upon a time"
NEW = 40


@pytest.fixture(scope="module")
def tokenizer():
    fast = byte_tokenizer(eos_token="<end>", bos_token="<begin>")
    begin = ("<begin>", fast.bos_token_id)
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[begin])
    return fast


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_llama(vocab_size=len(tokenizer), max_position_embeddings=512)


@pytest.fixture(scope="module")
def engine(model, tokenizer):
    engine = engine_over(model, tokenizer)
    yield engine
    engine.close()


@pytest.fixture
def pieces(engine, tokenizer):
    def run(packaged=None, **inputs):
        meter = Meter(lambda name, value: None)
        asked = from_run(**{"max_new_tokens": NEW, **inputs})
        return list(stream_text(asked, engine, tokenizer, Mailbox(60), meter, packaged))

    return run


@pytest.fixture
def text(pieces):
    return lambda *args, **inputs: "".join(pieces(*args, **inputs))


@torch.no_grad()
def plain(model, tokenizer, ids, **options):
    """What transformers makes of a prompt, greedily: all ids."""
    ids = torch.tensor([list(ids)])
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, **options}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0].tolist()


def greedy(model, tokenizer, text=TEXT, **options):
    ids = tokenizer.encode(text)
    return tokenizer.decode(plain(model, tokenizer, ids, **options)[len(ids) :], skip_special_tokens=True)


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("skips", [True, False])
def test_the_text_with_prompt_and_specials_is_what_decode_gives(text, model, tokenizer, returns, skips):
    ids = tokenizer.encode(TEXT)
    end = plain(model, tokenizer, ids)[len(ids) + 7]
    everything = plain(model, tokenizer, ids, eos_token_id=end)
    expected = tokenizer.decode(everything if returns else everything[len(ids) :], skip_special_tokens=skips)
    if skips:
        expected = expected.removesuffix(tokenizer.decode([end]))
    shown = text(prompt=TEXT, return_prompt=returns, skip_special_tokens=skips, eos_token_id=end)
    assert shown == expected


def test_several_prompts_are_each_as_if_alone(pieces, model, tokenizer):
    prompts = [TEXT, "x", "A much longer prompt than the others are, by far"]
    (answer,) = pieces(prompts=prompts)
    assert json.loads(answer) == [greedy(model, tokenizer, prompt) for prompt in prompts]


def test_a_stop_text_ends_the_answer_across_tokens_and_is_not_shown(pieces, model, tokenizer):
    whole = greedy(model, tokenizer)
    for start in range(3, len(whole) - 4, 5):
        stop = whole[start : start + 3]
        shown = pieces(prompt=TEXT, stop=[stop, "never there"])
        assert "".join(shown) == whole[: whole.index(stop)]


def test_a_named_template_brings_its_stop_and_an_empty_list_takes_it_away(engine, model, tokenizer, text, monkeypatch):
    prompt = templates.find("alpaca").render([{"role": "user", "content": "Do X."}])
    whole = greedy(model, tokenizer, prompt)
    stop = whole[5:8]
    packaged = Prompt(template="alpaca", stop=(stop,))
    assert text(packaged, instruction="Do X.") == whole[: whole.index(stop)]
    assert text(packaged, prompt="Do X.") == whole[: whole.index(stop)]
    assert text(packaged, instruction="Do X.", stop=[]) == whole
    assert text(packaged, prompt="Do X.", template="none") == greedy(model, tokenizer, "Do X.")
    assert text(instruction="Do X.", template="alpaca") == whole


def test_messages_through_a_named_template(tokenizer):
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    (one,) = encode(from_run(messages=messages, template="default", system_prompt="S"), tokenizer)
    assert tokenizer.decode(one.ids) == "<begin>S\n\n### Human: a\n### Assistant: b\n### Human: c\n### Assistant:"
    assert one.stop == ("\n###",)
    (closed,) = encode(from_run(messages=messages[:2], template="default", add_generation_prompt=False), tokenizer)
    assert tokenizer.decode(closed.ids).endswith("### Human: a\n### Assistant: b\n###")


@pytest.mark.parametrize("add", [True, False])
def test_questions_are_the_originals_prompt(tokenizer, add):
    original = json.loads(ORIGINAL.read_text())
    asked = from_run(qas=json.dumps(original["qas"]), template="default", add_generation_prompt=add)
    (prompt,) = encode(asked, tokenizer)
    expected = original["conversation"]["default"]["open"]
    text = tokenizer.decode(prompt.ids, skip_special_tokens=True)
    assert text == (expected if add else expected.removesuffix(" Assistant:"))
    assert prompt.stop == ("\n###",)
    # A last answer that is given closes the conversation.
    (closed,) = encode(from_run(qas='[["a", "b"], ["c", "d"]]', template="default"), tokenizer)
    assert tokenizer.decode(closed.ids, skip_special_tokens=True) == original["conversation"]["default"]["closed"]


def test_a_padding_token_changes_nothing(text):
    assert text(prompt=TEXT, pad_token_id=3) == text(prompt=TEXT)


def test_a_packaged_template_that_writes_the_first_token_gets_no_second(tokenizer):
    packaged = Prompt(text="{{ bos_token }}{% for m in messages %}<{{ m.content }}>{% endfor %}")
    (one,) = encode(from_run(messages=[{"role": "user", "content": "a"}]), tokenizer, packaged)
    assert tokenizer.decode(one.ids) == "<begin><a>"


def test_a_stop_that_is_one_special_token_is_an_end_token(engine, model, tokenizer, text):
    (one,) = encode(from_run(prompt="x", stop=["<end>", "y"]), tokenizer)
    assert (one.stop, one.end_ids) == (("y",), {tokenizer.eos_token_id})
    assert text(prompt=TEXT, stop=["<end>"]) == greedy(model, tokenizer)


def test_masked_tokens_never_come(text, model, tokenizer):
    ids = tokenizer.encode(TEXT)
    masked = sorted(set(plain(model, tokenizer, ids)[len(ids) :]))[:5]
    expected = greedy(model, tokenizer, suppress_tokens=masked)
    assert text(prompt=TEXT, masked_tokens=masked) == expected != greedy(model, tokenizer)
    assert text(prompt=TEXT, logit_bias={str(token): -1e9 for token in masked}) == expected


def test_sampling_is_repeatable_and_may_be_switched_off(text, model, tokenizer):
    drawn = [text(prompt=TEXT, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert text(prompt=TEXT, temperature=1.5, do_sample=False, seed=1) == greedy(model, tokenizer)
    assert text(prompt=TEXT, temperature=1.5, top_k=1) == greedy(model, tokenizer)
    assert text(prompt=TEXT, do_sample=True, seed=1) == text(prompt=TEXT, temperature=1.0, seed=1)
    assert text(prompt=TEXT, temperature=1.5, generator="greedy", seed=1) == greedy(model, tokenizer)
    assert text(prompt=TEXT, generator="sample", seed=1) == text(prompt=TEXT, temperature=1.0, seed=1)
    assert text(prompt=TEXT, generator="sample", temperature=1.5, do_sample=True, seed=1) == drawn[0]
    with pytest.raises(RequestError, match="generator is 'greedy' and do_sample is true"):
        text(prompt=TEXT, generator="greedy", do_sample=True)


def test_a_warm_up_changes_nothing_but_is_run(pieces, engine, monkeypatch):
    submitted = []
    submit = engine.submit
    monkeypatch.setattr(
        engine, "submit", lambda request, *args, **kw: submitted.append(request) or submit(request, *args, **kw)
    )
    cold = pieces(prompt=TEXT, temperature=1.0, seed=3)
    assert len(submitted) == 1
    assert "".join(pieces(prompt=TEXT, temperature=1.0, seed=3, warmup=True)) == "".join(cold)
    assert len(submitted) == 3


def test_the_cache_changes_no_text(text):
    assert text(prompt=TEXT, use_cache=False) == text(prompt=TEXT)


def test_cumulative_lines_say_all_so_far(pieces, text):
    lines = [json.loads(line) for line in "".join(pieces(prompt=TEXT, stream="cumulative")).splitlines()]
    texts = [line["text"] for line in lines]
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert texts[-1] == text(prompt=TEXT)
    assert [line["end_of_content"] for line in lines] == [False] * (len(lines) - 1) + [True]


def test_a_long_prompt_loses_its_beginning_where_that_is_wanted(engine, model, tokenizer, text):
    long = "word " * engine.info.max_context
    ids = tokenizer.encode(long)[-(engine.info.max_context - NEW) :]
    expected = tokenizer.decode(plain(model, tokenizer, ids)[len(ids) :], skip_special_tokens=True)
    assert text(prompt=long, truncate_prompt=True) == expected
    assert text(Prompt(truncate=True), prompt=long) == expected
    for refused in (lambda: text(prompt=long), lambda: text(Prompt(truncate=True), prompt=long, truncate_prompt=False)):
        with pytest.raises(RequestError, match="leaves no room"):
            refused()


def test_none_means_to_the_end_of_the_context(engine, tokenizer, text):
    limit = engine.info.max_context
    shown = text(prompt=TEXT, max_new_tokens=0, skip_special_tokens=False, eos_token_id=0, masked_tokens=[0])
    assert len(tokenizer.encode(TEXT)) + NEW < limit
    assert len(shown) > NEW


@pytest.mark.parametrize("name", ["max_tokens", "max_gen_len"])
def test_the_length_has_other_names(text, name):
    assert text(prompt=TEXT, **{name: 7}) == text(prompt=TEXT, max_new_tokens=7)


def test_a_constraint(text):
    assert text(prompt=TEXT, regex="[ab]{3}") in {a + b + c for a in "ab" for b in "ab" for c in "ab"}
    assert text(prompt=TEXT, choices=["yes", "no"]) in ("yes", "no")


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({}, "none of prompt, prompts, messages, instruction"),
        ({"prompt": "a", "instruction": "b"}, "prompt and instruction are given together"),
        ({"prompt": "a", "template": "alpacca"}, "no prompt template 'alpacca'"),
        ({"prompt": "a", "system_prompt": "b"}, "no place for it"),
        ({"messages": [{"role": "user", "content": "b"}]}, "no chat template"),
        ({"prompt": "a", "regex": "a", "choices": ["b"]}, "regex and choices"),
        ({"prompt": "a", "max_tokens": 3, "max_gen_len": 4}, "two names"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
        ({"prompt": "a", "stop": [""]}, "empty"),
        ({"qas": "[", "template": "default"}, "qas cannot be read"),
        ({"qas": "{}", "template": "default"}, "no list of questions"),
        ({"qas": '[["a", null], ["b", null]]', "template": "default"}, "'a' has no answer"),
        ({"qas": '[["a", null]]', "messages": [{"role": "user", "content": "b"}]}, "messages and qas"),
        ({"qas": '[["a", null]]', "prompt": "b"}, "prompt and messages"),
        ({"prompts": ["a"], "input": "b"}, "leave out input"),
        ({"prompt": "a", "regex": "a", "eos_token_id": 3}, "constraint"),
        ({"prompt": "a", "eos_token_id": 99999}, "eos_ids"),
    ],
)
def test_contradictions_are_refused(pieces, inputs, named):
    with pytest.raises(RequestError) as refused:
        pieces(**inputs)
    assert named in str(refused.value)


def test_a_seed_may_be_larger_than_torchs(text):
    largest, beyond = (text(prompt=TEXT, temperature=1.5, seed=seed) for seed in (2**64 - 1, 2**64))
    assert beyond == text(prompt=TEXT, temperature=1.5, seed=2**64) != largest


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 1.0, "top_k": 50},
        {"temperature": 0.7, "top_p": 0.75},
        {"temperature": 3.0, "top_k": 100, "top_p": 0.9, "repetition_penalty": 1.2},
        {"temperature": 4.0, "top_p": 0.999},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 42, 2**31])
def test_a_seed_draws_what_transformers_does_with_it(text, model, tokenizer, settings, seed):
    ids = tokenizer.encode(TEXT)
    torch.manual_seed(seed)
    sampled = {"do_sample": True, "top_k": 0, "top_p": 1.0, "eos_token_id": tokenizer.eos_token_id, **settings}
    expected = tokenizer.decode(plain(model, tokenizer, ids, **sampled)[len(ids) :], skip_special_tokens=True)
    assert text(prompt=TEXT, seed=seed, **settings) == expected
    assert json.loads(text(prompts=[TEXT, "x"], seed=seed, **settings))[0] == expected
