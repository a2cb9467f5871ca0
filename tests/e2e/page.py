"""What tests of the page do on it, over a `browser.Page`, and what they look at."""

from contextlib import contextmanager

import pytest

from .browser import CHROMIUM

NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
QUESTION = "What is the capital of France?"
# An answer is there, and no other comes.
DONE = "document.querySelector('.view:not([hidden]) .t') && !document.querySelector('.running')"
LEAST = [0.9, 0.5, 0.2, 0.05, 0.01, 0.0]
"""The least probability of each colour, from the likeliest on."""


@contextmanager
def opened(tab, url, token=None):
    """The page, ready, as it is found at first; nothing may go wrong in it, and nothing be asked for elsewhere."""
    tab.faults.clear()
    tab.requests.clear()
    tab.open(f"{url}/demo/")
    if token is not None:
        tab.until("document.querySelector('#login').open || document.body.dataset.ready")
        tab.js(f"sessionStorage.setItem('cogsmith-token', '{token}')")
        tab.faults.clear()
        tab.open(f"{url}/demo/")
    tab.until("document.body.dataset.ready")
    yield tab
    assert tab.faults == []
    assert [asked for asked in tab.requests if not asked.startswith((url, "about:", "data:"))] == []


def set_to(page, **settings):
    """Move sliders."""
    for name, value in settings.items():
        slider = f"document.querySelector('#{name.replace('_', '-')}')"
        page.js(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input'))")


def ask(page, text=QUESTION, **settings):
    """Send a message, by default for the likeliest answer, and wait for the end of that."""
    set_to(page, **{"temperature": 0, "max_tokens": 12, **settings})
    page.type(".view:not([hidden]) [name=message]", text)
    page.click(".view:not([hidden]) .primary")
    page.until(DONE)


def open_view(page, name):
    """Choose a tab of the page."""
    page.click(f"#tab-{name}")
    page.until(f"document.body.dataset.view === '{name}'")


def answer(page):
    """The text of the last answer. What is only a part of a character has none."""
    return "".join(page.texts(".turn:last-child .t:not(.silent, .part)"))


def levels(page):
    """The colour of each token of the last answer."""
    return page.js(
        "[...document.querySelectorAll('.turn:last-child .t')].map((one) => Number(one.className.match(/p(\\d)/)[1]))"
    )


def level_of(probability):
    """The colour that a token of this probability is to have."""
    return next(level for level, least in enumerate(LEAST) if probability >= least)


def looks(page):
    """Each size and colour scheme in turn, as pairs (width, dark); afterwards the page is as it was."""
    try:
        for width in (1280, 390):
            for dark in (False, True):
                page.size(width, 844, phone=width < 400, dark=dark)
                yield width, dark
    finally:
        page.size(1280, 900)


def require_legible(page):
    """Nothing overflows, and each text stands out against its ground as WCAG demands."""
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    assert min(page.js(CONTRASTS)) >= 4.5


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
    const chosen = ".t, .hint, .state, .question, button.primary:enabled, .attach, .figures, .error, h2";
    return [...document.querySelectorAll(chosen)]
        .filter((one) => one.offsetParent && !one.closest("[hidden]")).map((one) => {
            const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05); });
})()"""
