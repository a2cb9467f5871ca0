"""The page's controls in a real browser, over models that are small, for here it does not matter what they say."""

import pytest

from .conftest import DEMO_TOKEN
from .page import NEEDS_CHROMIUM, QUESTION, ask, open_view, opened, set_to

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("llava"), NEEDS_CHROMIUM]


@pytest.fixture
def page(tab, demo):
    with opened(tab, demo.url, DEMO_TOKEN) as page:
        yield page


def test_where_a_token_is_demanded_the_page_asks_for_it_and_of_several_models_one_is_chosen(tab, demo):
    tab.open(f"{demo.url}/demo/")
    tab.js("sessionStorage.clear()")
    tab.open(f"{demo.url}/demo/")
    tab.until("document.querySelector('#login').open")
    tab.type("#login input", "wrong")
    tab.press("Enter")
    tab.until("document.querySelector('#login').open && document.querySelector('#login input').value === ''")
    tab.type("#login input", DEMO_TOKEN)
    tab.press("Enter")
    tab.until("document.body.dataset.ready")
    assert tab.texts("#model option") == ["tiny", "llava"]
    assert "context 8192" in tab.texts("#state")[0]
    tab.choose("#model", "llava")
    tab.until("document.querySelector('#state').textContent.includes('context 512')", 120)


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
