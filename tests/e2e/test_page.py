"""The page of `cogsmith serve --demo` in a real browser, over the real SmolLM2, checked against plain transformers."""

import json
import math

import pytest
import torch

from . import gateway as gateways
from .page import (
    DONE,
    NEEDS_CHROMIUM,
    QUESTION,
    answer,
    ask,
    level_of,
    levels,
    looks,
    open_view,
    opened,
    require_legible,
)

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["n"],
    "additionalProperties": False,
}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smollm2"), NEEDS_CHROMIUM]


@pytest.fixture(scope="module")
def served(smollm2, tmp_path_factory):
    with gateways.running(smollm2, log=tmp_path_factory.mktemp("page") / "log", options=("--demo",)) as running:
        yield running


@pytest.fixture
def page(tab, served):
    with opened(tab, served.url) as page:
        yield page


@pytest.fixture(scope="module")
def truth(plain_smollm2):
    """The same checkpoint under plain transformers: the log-probabilities behind ids, and greedy continuations."""
    plain = plain_smollm2
    return plain.tokenizer, lambda ids: plain.logprobs(ids)[-1], plain.greedy


def prompt_of(tokenizer, *turns):
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def test_each_token_of_an_answer_has_the_colour_of_its_probability(page, truth, plain_smollm2):
    tokenizer, _, greedy = truth
    ask(page)
    prompt = prompt_of(tokenizer, QUESTION)
    expected = greedy(prompt, 7)
    assert page.texts(".turn .t")[:7] == [tokenizer.decode([id_]) for id_ in expected]
    logprobs = plain_smollm2.score(prompt, expected)
    assert levels(page)[:7] == [level_of(math.exp(logprob)) for logprob in logprobs]


def test_pointing_at_a_token_shows_what_else_could_have_come(page, truth):
    tokenizer, logprobs, greedy = truth
    ask(page)
    page.point(".turn .t:nth-child(2)")
    page.until("!document.querySelector('#card').hidden")
    prompt = prompt_of(tokenizer, QUESTION)
    best = logprobs([*prompt, *greedy(prompt, 1)]).exp().topk(8)
    labels = [tokenizer.decode([id_]).replace(" ", "␣").replace("\n", "↵") for id_ in best.indices.tolist()]
    assert page.texts("#card li:not(.rest) .label") == labels
    shares = [float(text.removeprefix("< ").removesuffix(" %")) for text in page.texts("#card li:not(.rest) .share")]
    assert shares == pytest.approx([100 * share for share in best.values.tolist()], abs=0.1)


def test_an_alternative_is_gone_on_from_and_the_answer_before_is_kept(page, truth):
    tokenizer, logprobs, greedy = truth
    ask(page, max_tokens=6)
    before = answer(page)
    page.click(".turn .t:nth-child(2)")
    page.click("#card button.alternative")
    page.until("document.querySelector('.turn .count')?.textContent === '2 / 2'")
    page.until(DONE)
    prompt = prompt_of(tokenizer, QUESTION)
    (first,) = greedy(prompt, 1)
    second = logprobs([*prompt, first]).topk(2).indices[1].item()
    expected = [first, second, *greedy([*prompt, first, second], 4)]
    assert answer(page) == tokenizer.decode(expected, skip_special_tokens=True)
    page.click(".tool[title='The version before']")
    assert answer(page) == before


def test_a_conversation_goes_on_is_taken_back_and_cleared(page, truth):
    tokenizer, _, greedy = truth
    ask(page, max_tokens=40)
    first = answer(page)
    ask(page, "And of Italy?", max_tokens=6)
    expected = greedy(prompt_of(tokenizer, QUESTION, first.strip(), "And of Italy?"), 6)
    assert answer(page) == tokenizer.decode(expected, skip_special_tokens=True)
    page.click("#chat .undo")
    assert page.texts(".question") == [QUESTION]
    assert page.js("document.querySelector('#chat textarea').value") == "And of Italy?"
    page.click("#chat .clear")
    assert page.texts(".turn") == []


def test_what_was_cut_goes_on_where_it_was(page, truth):
    tokenizer, _, greedy = truth
    ask(page, "Count from one to twenty.", max_tokens=5)
    assert "cut at the greatest length" in page.texts(".turn .foot")[0]
    page.click(".tool[title^='Go on']")
    page.until("document.querySelectorAll('.turn .t').length === 10")
    expected = greedy(prompt_of(tokenizer, "Count from one to twenty."), 10)
    assert answer(page) == tokenizer.decode(expected, skip_special_tokens=True)


def test_a_single_turn_goes_through_the_template_with_its_input(page, truth):
    tokenizer, _, greedy = truth
    open_view(page, "single")
    page.choose("#template", "alpaca")
    page.type("#single [name=input]", "Paris, Rome")
    ask(page, "Sort these cities.", max_tokens=8)
    text = (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nSort these cities.\n\n### Input:\n"
        "Paris, Rome\n\n### Response:"
    )
    assert answer(page) == tokenizer.decode(greedy(tokenizer.encode(text), 8), skip_special_tokens=True)


def test_a_constraint_holds_and_what_is_forced_is_marked(page):
    page.choose("#constraint-kind", "choice")
    page.type("#constraint-text", "perhaps not\nnever at all")
    ask(page)
    assert answer(page) in ("perhaps not", "never at all")
    assert page.js("document.querySelectorAll('.turn .t.forced').length") > 0
    page.choose("#constraint-kind", "json_schema")
    page.type("#constraint-text", json.dumps(SCHEMA))
    ask(page, "A number, as JSON.", max_tokens=30)
    assert json.loads(answer(page)).keys() == {"n"}


def test_options_share_their_probability_as_bars(page, truth):
    tokenizer, logprobs, _ = truth
    open_view(page, "compare")
    page.click("#compare .primary")
    page.until("!document.querySelector('#compare .results').hidden")
    found = logprobs(tokenizer.encode("The opposite of hot is"))
    each = torch.stack([found[tokenizer.encode(f" {word}")[0]] for word in ("cold", "warm", "blue")])
    assert page.texts(".bars .option") == [" cold", " warm", " blue"]
    shares = [float(text.removesuffix(" %")) for text in page.texts(".bars .share")]
    assert shares == pytest.approx((each.softmax(-1) * 100).tolist(), abs=0.06)
    widths = page.js(
        "[...document.querySelectorAll('.bars .bar')].map((one) => one.offsetWidth / one.parentElement.offsetWidth)"
    )
    assert widths[:2] == pytest.approx(each.softmax(-1)[:2].tolist(), abs=0.01)
    page.click(".segments label:nth-of-type(3)")
    assert float(page.texts(".bars .share")[0].removesuffix(" %")) == pytest.approx(
        each[0].exp().item() * 100, abs=0.06
    )


def test_a_text_is_read_with_a_chart_that_follows(page, truth):
    tokenizer, logprobs, _ = truth
    open_view(page, "read")
    page.type("#read textarea", "The sun rises in the banana.")
    page.click("#read .primary")
    page.until(DONE)
    ids = tokenizer.encode("The sun rises in the banana.")
    assert page.texts("#read .t") == [tokenizer.decode([id_]) for id_ in ids]
    each = [logprobs(ids[:place])[ids[place]].item() for place in range(1, len(ids))]
    mean = -sum(each) / len(each) / torch.log(torch.tensor(2.0)).item()
    page.until("document.querySelector('#read figcaption .figures').textContent")
    assert f"mean {mean:.2f} bits" in page.texts("#read figcaption .figures")[0]
    # The bar that stands out is the banana's; the token is marked with it.
    box = page.js("(({ left, top }) => [left, top])(document.querySelector('#read canvas').getBoundingClientRect())")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + 34 + 14 * 5.5, y=box[1] + 50)
    page.until("document.querySelector('#read .t.active')")
    assert page.texts("#read .t.active") == [" banana"]


def test_nothing_overflows_and_text_can_be_read_on_its_ground(page):
    ask(page, "Say a long sentence.", max_tokens=30)
    for _ in looks(page):
        require_legible(page)
