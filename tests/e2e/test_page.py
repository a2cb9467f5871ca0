"""The page of `cogsmith serve --demo` in a real browser, over the real SmolLM2, checked against plain transformers."""

import json

import pytest
import torch

from . import gateway as gateways
from .browser import CHROMIUM, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("smollm2"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium"),
]

QUESTION = "What is the capital of France?"
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["n"],
    "additionalProperties": False,
}
# An answer is there, and no other comes.
DONE = "document.querySelector('.view:not([hidden]) .t') && !document.querySelector('.running')"
LEAST = [0.9, 0.5, 0.2, 0.05, 0.01, 0.0]


@pytest.fixture(scope="module")
def served(smollm2, tmp_path_factory):
    with gateways.running(smollm2, log=tmp_path_factory.mktemp("page") / "log", options=("--demo",)) as running:
        yield running


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        page.size(1280, 900)
        yield page


@pytest.fixture
def page(tab, served):
    """The page, ready, as it is found at first; nothing may go wrong in it, and nothing be asked for elsewhere."""
    tab.faults.clear()
    tab.requests.clear()
    tab.open(f"{served.url}/demo/")
    tab.until("document.body.dataset.ready")
    yield tab
    assert tab.faults == []
    assert [url for url in tab.requests if not url.startswith((served.url, "about:", "data:"))] == []


@pytest.fixture(scope="module")
def truth(plain_smollm2):
    """The same checkpoint under plain transformers: the log-probabilities behind ids, and greedy continuations."""
    model, tokenizer = plain_smollm2.model, plain_smollm2.tokenizer

    @torch.no_grad()
    def logprobs(ids):
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].float(), -1)

    def greedy(ids, count):
        ids = list(ids)
        found = []
        for _ in range(count):
            found.append(logprobs(ids).argmax().item())
            ids.append(found[-1])
        return found

    return tokenizer, logprobs, greedy


def set_to(page, **settings):
    for name, value in settings.items():
        slider = f"document.querySelector('#{name.replace('_', '-')}')"
        page.js(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input'))")


def ask(page, text=QUESTION, **settings):
    set_to(page, **{"temperature": 0, "max_tokens": 12, **settings})
    page.type(".view:not([hidden]) [name=message]", text)
    page.click(".view:not([hidden]) .primary")
    page.until(DONE)


def open_view(page, name):
    page.click(f"#tab-{name}")
    page.until(f"document.body.dataset.view === '{name}'")


def prompt_of(tokenizer, *turns):
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def answer(page):
    return "".join(page.texts(".turn:last-child .t:not(.silent)"))


def test_each_token_of_an_answer_has_the_colour_of_its_probability(page, truth):
    tokenizer, logprobs, greedy = truth
    ask(page)
    prompt = prompt_of(tokenizer, QUESTION)
    expected = greedy(prompt, 7)
    assert page.texts(".turn .t")[:7] == [tokenizer.decode([id_]) for id_ in expected]
    levels = page.js(
        "[...document.querySelectorAll('.turn .t')].map((one) => Number(one.className.match(/p(\\d)/)[1]))"
    )
    for place, id_ in enumerate(expected):
        probability = logprobs([*prompt, *expected[:place]])[id_].exp().item()
        assert levels[place] == next(level for level, least in enumerate(LEAST) if probability >= least)


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


def test_a_long_answer_is_stopped(page):
    set_to(page, temperature=1, top_p=1, max_tokens=4000)
    page.type("#chat textarea", "Write a very long story.")
    page.press("Enter")
    page.until("document.querySelectorAll('.turn .t').length > 5")
    page.click("#chat .stop")
    page.until("!document.querySelector('.running')")
    assert "stopped" in page.texts(".turn .foot")[0]


def test_the_controls_have_the_ranges_of_the_original(page):
    ranges = """['max-tokens', 'temperature', 'top-p'].map((id) => {
        const { min, max, value } = document.getElementById(id); return [min, max, value].map(Number); })"""
    assert page.js(ranges) == [[1, 4096, 256], [0, 1, 0.1], [0, 1, 0.75]]
    open_view(page, "single")
    assert page.js(ranges) == [[1, 512, 128], [0, 1, 0.1], [0, 1, 0.75]]


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


@pytest.mark.parametrize(
    ("kind", "text", "told", "is_asked"),
    [
        ("choice", "", "one choice", False),
        ("json_schema", '{"type": ', "no JSON", False),
        ("json_schema", "[1]", "JSON object", False),
        ("regex", "[a-", "unclosed character class", True),
        ("json_schema", '{"type": "strange"}', "strange", True),
    ],
)
def test_what_is_wrong_with_a_constraint_is_said_beside_it(page, kind, text, told, is_asked):
    page.choose("#constraint-kind", kind)
    page.type("#constraint-text", text)
    page.type("#chat textarea", QUESTION)
    page.press("Enter")
    page.until("!document.querySelector('#constraint-error').hidden")
    assert told in page.texts("#constraint-error")[0]
    assert page.js("document.querySelector('#constraint-text').getAttribute('aria-invalid')") == "true"
    assert bool([url for url in page.requests if url.endswith("/generation")]) == is_asked


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


def test_all_of_it_can_be_done_with_the_keyboard(page):
    ask(page, max_tokens=6)
    page.js("document.querySelector('.turn .tokens').focus()")
    for _ in range(2):
        page.press("ArrowRight")
    assert page.js("document.querySelector('.t.active') === document.querySelectorAll('.turn .t')[1]")
    assert page.texts("#announcer")[0].endswith("%")
    page.press("Enter")
    assert page.js("document.activeElement.closest('#card') !== null")
    page.press("Escape")
    assert page.js("document.querySelector('#card').hidden")
    page.js("document.querySelector('#tab-chat').focus()")
    page.press("ArrowRight")
    page.until("location.hash === '#single'")


def test_thousands_of_tokens_are_no_burden(page):
    milliseconds = page.js("""(async () => {
        const { TokenText } = await import("/demo/token_text.js"), { SurpriseChart } = await import("/demo/chart.js");
        const text = new TokenText("many"), chart = new SurpriseChart(), view = document.querySelector("#chat .turns");
        view.append(text.element, chart.element);
        const one = (n) => ({ id: n, label: " word", text: " word", logprob: -(n % 9), top: [] });
        const began = performance.now();
        for (let n = 0; n < 2000; n += 1) { text.append([one(n)]); chart.show(text.tokens); }
        view.offsetHeight;
        const grown = performance.now();
        text.activate(1999); chart.mark(1999);
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        return [grown - began, performance.now() - grown];
    })()""")
    assert milliseconds[0] < 2000, milliseconds
    assert milliseconds[1] < 500, milliseconds


def test_where_a_token_is_demanded_the_page_asks_for_it_and_of_several_models_one_is_chosen(
    tiny, smollm2, tab, tmp_path
):
    _, folder = tiny
    options = ("--demo", "--lazy", "--token", "secret")
    with gateways.running(folder, smollm2, log=tmp_path / "log", options=options) as running:
        tab.open(f"{running.url}/demo/")
        tab.until("document.querySelector('#login').open")
        tab.type("#login input", "wrong")
        tab.press("Enter")
        tab.until("document.querySelector('#login').open && document.querySelector('#login input').value === ''")
        tab.type("#login input", "secret")
        tab.press("Enter")
        tab.until("document.body.dataset.ready")
        assert tab.texts("#model option") == ["tiny", "smollm2-135m"]
        assert "context 8192" in tab.texts("#state")[0]
        tab.choose("#model", "smollm2-135m")
        tab.until("document.querySelector('#state').textContent.startsWith('135M parameters')", 120)
        tab.js("sessionStorage.clear()")


@pytest.mark.parametrize(
    ("width", "phone", "dark"), [(1280, False, False), (1280, False, True), (390, True, False), (390, True, True)]
)
def test_nothing_overflows_and_text_can_be_read_on_its_ground(page, width, phone, dark):
    page.size(width, 844, phone=phone, dark=dark)
    try:
        ask(page, "Say a long sentence.", max_tokens=30)
        assert page.js("document.documentElement.scrollWidth <= innerWidth")
        assert min(page.js(CONTRASTS)) >= 4.5
    finally:
        page.size(1280, 900)


# Of each text with the ground that it is on, as WCAG measures it.
CONTRASTS = """(() => {
    const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgb = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data]; };
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (one) => { for (; one; one = one.parentElement) {
        const colour = rgb(getComputedStyle(one).backgroundColor); if (colour[3] === 255) return colour; } };
    return [...document.querySelectorAll(".t, .hint, .state, .question, button.primary:enabled, .figures, h2")]
        .filter((one) => one.offsetParent && !one.closest("[hidden]")).map((one) => {
            const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05); });
})()"""
