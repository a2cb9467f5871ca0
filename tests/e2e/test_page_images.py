"""Images on the page, in a real browser, over a tiny LLaVA, checked against plain transformers on the same files."""

import pytest
import torch

from cogsmith.prompts import templates

from ..engine.vision import picture
from .conftest import DEMO_TOKEN
from .llava import NEW, PROCESSOR, png, shown, square, truth
from .page import NEEDS_CHROMIUM, answer, ask, level_of, levels, looks, open_view, opened, require_legible

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("llava"), NEEDS_CHROMIUM]

ATTACHED = ".view:not([hidden]) .images"


@pytest.fixture
def page(tab, demo):
    with opened(tab, demo.url, DEMO_TOKEN) as page:
        page.choose("#model", "llava")
        page.until("document.querySelector('#state').textContent.includes('context 512')", 120)
        page.choose("#template", "llava_v1")
        yield page


@pytest.fixture
def files(tmp_path):
    """Two images, and their files."""
    pictures = [picture(0), picture(1, (40, 60))]
    for place, one in enumerate(pictures):
        (tmp_path / f"{place}.png").write_bytes(png(one))
    return pictures, [tmp_path / f"{place}.png" for place in range(2)]


def read(tokens):
    """What is read on the page: a character that was cut at the end is not shown."""
    return shown(tokens).rstrip("\N{REPLACEMENT CHARACTER}")


def attach(page, *files):
    """Choose files for the open view, and wait until they are shown."""
    before = len(attached(page))
    page.upload(f"{ATTACHED} input", *files)
    page.until(f"document.querySelectorAll('{ATTACHED} img').length === {before + len(files)}")


def attached(page):
    """The names of the images that would be sent."""
    return page.js(f"[...document.querySelectorAll('{ATTACHED} img')].map((one) => one.alt)")


def conversation(*said):
    """The prompt of llava_v1 for what user and assistant said in turn."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said)]
    return templates.find("llava_v1").render(messages)


def test_each_token_after_an_image_has_the_colour_of_its_probability(page, llava, files):
    (one, _), (file, _) = files
    attach(page, file)
    ask(page, "What is it?")
    tokens, logprobs = truth(llava[0], conversation("<image>\nWhat is it?"), one)
    assert answer(page) == read(tokens)
    probabilities = [row[token].exp().item() for row, token in zip(logprobs, tokens, strict=True)]
    expected = [level_of(probability) for probability in probabilities]
    assert levels(page) == expected[: len(levels(page))]
    page.point(".turn .t:nth-child(2)")
    page.until("!document.querySelector('#card').hidden")
    shares = [float(text.removeprefix("< ").removesuffix(" %")) for text in page.texts("#card li:not(.rest) .share")]
    assert shares == pytest.approx((100 * logprobs[1].exp().topk(8).values).tolist(), abs=0.1)
    # Its chart has a bar for each token.
    assert page.js("!document.querySelector('#chat figure').hidden")


def test_an_alternative_is_gone_on_from_with_the_image(page, llava, files):
    (one, _), (file, _) = files
    attach(page, file)
    ask(page, "What is it?", max_tokens=6)
    page.click(".turn .t:nth-child(1)")
    page.click("#card button.alternative")
    page.until("document.querySelector('.turn .count')?.textContent === '2 / 2'")
    page.until("!document.querySelector('.running')")
    text = conversation("<image>\nWhat is it?")
    _, logprobs = truth(llava[0], text, one, count=1)
    second = logprobs[0].topk(2).indices[1].item()
    inputs = PROCESSOR(text=[text], images=[one], return_tensors="pt")
    ids = torch.cat([inputs["input_ids"], torch.tensor([[second]])], dim=1)
    made = llava[0].generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=inputs["pixel_values"],
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=258,
    )
    assert answer(page) == read(made[0, ids.shape[1] - 1 :].tolist())


def test_an_image_belongs_to_the_message_that_it_was_sent_with(page, llava, files):
    (one, other), (file, second) = files
    model, _ = llava
    attach(page, file)
    ask(page, "What is it?")
    first = answer(page).strip()
    assert attached(page) == []
    attach(page, second)
    ask(page, "And this?")
    said = ("<image>\nWhat is it?", first)
    assert answer(page) == read(truth(model, conversation(*said, "<image>\nAnd this?"), one, other)[0])
    # Back into the composer, as it was written; the next goes without it.
    page.click("#chat .undo")
    assert attached(page) == ["1.png"]
    page.click(f"{ATTACHED} .remove")
    ask(page, "And this?")
    assert answer(page) == read(truth(model, conversation(*said, "And this?"), one)[0])
    attach(page, second)
    page.click("#chat .clear")
    assert (page.texts(".turn"), attached(page)) == ([], [])
    ask(page, "What is it?")
    assert answer(page) == read(truth(model, conversation("What is it?"))[0])


@pytest.mark.parametrize("transform", ["padded_resize", "resized_center_crop"])
def test_a_single_turn_with_an_image_and_a_transform(page, llava, files, transform):
    (one, _), (file, _) = files
    open_view(page, "single")
    page.choose("#template", "none")
    page.choose("#image-transform", transform)
    attach(page, file)
    ask(page, "What is it?")
    pixels = square(one, transform)
    assert answer(page) == read(truth(llava[0], "<image>\nWhat is it?", one, pixels=pixels)[0])
    # The images stay with the instruction, for the next run.
    assert attached(page) == ["0.png"]


def test_images_are_dropped_pasted_ordered_and_placed(page, llava, files):
    (one, other), (file, second) = files
    open_view(page, "single")
    page.choose("#template", "none")
    page.drop("#single textarea", second)
    page.until(f"document.querySelectorAll('{ATTACHED} img').length === 1")
    paste(page, "#single textarea", file)
    page.until(f"document.querySelectorAll('{ATTACHED} img').length === 2")
    text = "First <image>, then <image>."
    ask(page, text)
    assert answer(page) == read(truth(llava[0], text, other, one)[0])


def paste(page, selector, file):
    """Paste a file, as a browser tells of it."""
    content = list(file.read_bytes())
    page.js(f"""(() => {{
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([new Uint8Array({content})], "pasted.png", {{ type: "image/png" }}));
        document.querySelector("{selector}").dispatchEvent(
            new ClipboardEvent("paste", {{ clipboardData, bubbles: true, cancelable: true }}));
    }})()""")


def test_options_behind_an_image_share_their_probability_as_bars(page, llava, files):
    (one, _), (file, _) = files
    open_view(page, "compare")
    attach(page, file)
    page.type("#compare [name=prompt]", "What is it?")
    page.type("#compare [name=options]", "cat\ndog")
    page.click("#compare .primary")
    page.until("!document.querySelector('#compare .results').hidden")
    sums = torch.tensor([scored(llava[0], "<image>\nWhat is it?", option, one) for option in (" cat", " dog")])
    order = sums.argsort(descending=True).tolist()
    assert page.texts(".bars .option") == [(" cat", " dog")[place] for place in order]
    shares = [float(text.removesuffix(" %")) for text in page.texts(".bars .share")]
    assert shares == pytest.approx((100 * sums.softmax(-1))[order].tolist(), abs=0.06)


@torch.no_grad()
def scored(model, text, option, image):
    """The log-probability of an option behind a text with an image."""
    inputs = PROCESSOR(text=[text + option], images=[image], return_tensors="pt")
    ids = inputs["input_ids"][0]
    rows = torch.log_softmax(model(**inputs).logits[0].float(), -1)
    return sum(rows[place - 1, ids[place]].item() for place in range(len(ids) - len(option), len(ids)))


def test_a_constraint_holds_after_an_image(page, files):
    _, (file, _) = files
    attach(page, file)
    page.choose("#constraint-kind", "choice")
    page.type("#constraint-text", "perhaps not\nnever at all")
    ask(page, "What is it?", max_tokens=NEW)
    assert answer(page) in ("perhaps not", "never at all")


def test_bad_files_are_named_before_anything_is_sent(page, files, tmp_path):
    _, (file, _) = files
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes(b"no image either")
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(60 * 2**20)
    names = ("notes.txt", "broken.png", "large.png")
    page.upload(f"{ATTACHED} input", file, *(tmp_path / name for name in names))
    page.until(f"!document.querySelector('{ATTACHED} .error').hidden")
    (told,) = page.texts(f"{ATTACHED} .error")
    assert [line.partition(":")[0] for line in told.splitlines()] == list(names)
    for reason, line in zip(("none of PNG", "no image that can be read", "60 MiB"), told.splitlines(), strict=True):
        assert reason in line
    # What can be sent is kept, and nothing has been.
    assert attached(page) == ["0.png"]
    assert not [url for url in page.requests if url.endswith("/generation")]


def test_a_model_of_texts_has_no_upload(page):
    assert page.js(f"document.querySelector('{ATTACHED}').offsetParent !== null")
    page.choose("#model", "tiny")
    page.until("document.querySelector('#state').textContent.includes('context 8192')", 120)
    for view in ("chat", "single", "compare"):
        open_view(page, view)
        assert page.js("[...document.querySelectorAll('.images, #imaging')].every((one) => one.offsetParent === null)")


def test_images_overflow_nothing_and_their_texts_can_be_read(page, files):
    _, paths = files
    attach(page, *paths)
    ask(page, "What are these?")
    attach(page, *paths)
    page.upload(f"{ATTACHED} input", __file__)
    page.until(f"!document.querySelector('{ATTACHED} .error').hidden")
    for _ in looks(page):
        require_legible(page)
