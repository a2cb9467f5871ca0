"""A tiny LLaVA, built from config.toml, through the real Cog runtime, against plain transformers on the same pixels."""

import base64
import json

import pytest
import torch
from PIL import Image

from cogsmith.client.cog_server import Prediction
from cogsmith.errors import ClientError
from cogsmith.gateway import cog_process
from cogsmith.prompts import templates

from ..engine.vision import picture
from .llava import NEW, PROCESSOR, data_uri, shown, square, truth

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("llava")]


@pytest.fixture(scope="module")
def served(llava):
    model, folder = llava
    with cog_process.running(folder) as server:
        yield model, server.url


@pytest.fixture
def ask(served):
    def ask(*images, **inputs):
        sent = {"max_new_tokens": NEW, "image": [data_uri(image) for image in images], **inputs}
        return "".join(Prediction(served[1], sent).chunks())

    return ask


@pytest.fixture
def operate(served):
    def operate(operations, *images, **inputs):
        sent = {"ops_batch_json": json.dumps(operations), "image": [data_uri(image) for image in images], **inputs}
        lines = "".join(Prediction(served[1], sent).chunks()).splitlines()
        return [json.loads(line.partition(" ")[2]) for line in lines]

    return operate


def test_text_answers_are_plain_transformers(served, ask):
    model, _ = served
    one, other = picture(0), picture(1, (40, 60))
    answers = [ask(image, prompt="What is it?") for image in (one, other)]
    assert answers == [shown(truth(model, "<image>\nWhat is it?", image)[0]) for image in (one, other)]
    assert answers[0] != answers[1]
    both = "First <image>, then <image>."
    assert ask(one, other, prompt=both) == shown(truth(model, both, one, other)[0])
    assert ask(prompt="What is it?") == shown(truth(model, "What is it?")[0])
    several = ask(one, prompts=["What is it?", "a <image> b"])
    texts = ("<image>\nWhat is it?", "a <image> b")
    assert json.loads(several) == [shown(truth(model, text, one)[0]) for text in texts]


@pytest.mark.parametrize("template", ["llava_v1", "default", "vicuna_v1_1"])
def test_templates_of_conversations(served, ask, template):
    model, _ = served
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "Noise."},
        {"role": "user", "content": "Surely?"},
    ]
    flat = [messages[0] | {"content": "<image>\nWhat is it?"}, *messages[1:]]
    text = templates.find(template).render(flat)
    expected = shown(truth(model, text, picture())[0])
    assert ask(picture(), messages=messages, template=template, stop=[]) == expected
    plain = [messages[0] | {"content": "What is it?"}, *messages[1:]]
    assert ask(picture(), messages=plain, template=template, stop=[]) == expected


@pytest.mark.parametrize("template", ["alpaca", "none", "caption"])
def test_templates_of_instructions(served, ask, template):
    model, _ = served
    text = templates.find(template).render([{"role": "user", "content": "<image>\nSay what it is."}])
    text = text if "<image>" in text else "<image>\n" + text
    expected = shown(truth(model, text, picture())[0])
    assert ask(picture(), instruction="Say what it is.", template=template) == expected


def test_ops_with_images_are_token_exact(served, operate):
    model, _ = served
    prompt = [*PROCESSOR.tokenizer.encode("Look: <image> so")]
    tokens, logprobs = truth(model, "Look: <image> so", picture())
    expected = [row[token].item() for row, token in zip(logprobs, tokens, strict=True)]
    count = tokens.index(256) + 1 if 256 in tokens else NEW
    generate = {"model": "m", "prompt": prompt, "max_tokens": NEW}
    allowed = sorted({65, 66, 67})
    mask = {"logit_bias": {str(id_): -100 for id_ in range(300) if id_ not in allowed}}
    operations = [
        ["GENERATE", {**generate, "stream_id": 1}],
        ["SCORE", {"model": "m", "prompt": prompt, "scored": tokens, "stream_id": 2}],
        ["GENERATE", {**generate, **mask, "stream_id": 3, "max_tokens": 1}],
        ["GENERATE", {**generate, "prompt": prompt[:5], "stream_id": 4, "max_tokens": 1}],
        ["GENERATE", {**generate, "stream_id": 5, "lmtp": "1.1", "constraint": {"choice": ["yes", "no"]}}],
        ["MODEL_INFO", {"model": "m", "stream_id": 6}],
    ]
    lines = operate(operations, picture())
    of = {number: [line for line in lines if line.get("stream_id") == number] for number in range(1, 7)}
    assert [line["token"] for line in of[1]] == tokens[:count]
    assert [line["logprob"] for line in of[1]] == pytest.approx(expected[:count], abs=1e-4)
    assert [line["logprob"] for line in of[2]] == pytest.approx(expected, abs=1e-4)
    best = max(allowed, key=lambda id_: logprobs[0][id_].item())
    masked = torch.log_softmax(logprobs[0] + torch.tensor([0.0 if id_ in allowed else -100 for id_ in range(260)]), -1)
    assert (of[3][0]["token"], of[3][0]["logprob"]) == (best, pytest.approx(masked[best].item(), abs=1e-4))
    assert "error" not in of[4][0]
    pieces = [line["token"] for line in of[5] if "token" in line]
    assert PROCESSOR.tokenizer.decode(pieces, skip_special_tokens=True) in ("yes", "no")
    info = of[6][0]["model_info"]
    assert (info["task"], info["image_token"], info["image_token_id"]) == ("image-text", "<image>", 259)


def test_ops_that_do_not_match_their_images(operate):
    image = 259
    operations = [
        ["GENERATE", {"model": "m", "prompt": [65, image, image], "stream_id": 1}],
        ["SCORE", {"model": "m", "prompt": [65, image], "scored": [image], "stream_id": 2}],
        ["GENERATE", {"model": "m", "prompt": [65, image], "stream_id": 3, "max_tokens": 1}],
        ["GENERATE", {"model": "m", "prompt": [65, image, image], "stream_id": 4, "lmtp": "1.1"}],
    ]
    lines = {line["stream_id"]: line for line in operate(operations, picture())}
    assert "2 image placeholders" in lines[1]["error"]
    assert "1 images are given" in lines[1]["error"]
    assert "scored holds the image token 259" in lines[2]["error"]
    assert "error" not in lines[3]
    assert "2 image placeholders" in lines[4]["error"]
    (line,) = operate([["GENERATE", {"model": "m", "prompt": [65, image], "stream_id": 1}]])
    assert "0 images are given" in line["error"]


@pytest.mark.parametrize("transform", ["padded_resize", "resized_center_crop"])
def test_transforms(served, operate, transform):
    model, _ = served
    prompt = PROCESSOR.tokenizer.encode("<image>\nWhat?")
    tokens, logprobs = truth(model, "<image>\nWhat?", picture(), pixels=square(picture(), transform))
    operation = ["SCORE", {"model": "m", "prompt": prompt, "scored": tokens, "stream_id": 1}]
    lines = operate([operation], picture(), image_transform=transform)
    expected = [row[token].item() for row, token in zip(logprobs, tokens, strict=True)]
    assert [line["logprob"] for line in lines] == pytest.approx(expected, abs=1e-4)


def test_what_is_wrong_is_named(served, ask):
    with pytest.raises(ClientError, match=r"1 image placeholders .*0 images"):
        ask(prompt="<image> what?")
    with pytest.raises(ClientError, match=r"1 image placeholders .*2 images"):
        ask(picture(), picture(), prompt="<image> what?")
    whole = data_uri(picture())
    for image, message in (
        (data_uri_of(b"no image at all"), "no image of a known kind"),
        (cut(whole), "cannot be read"),
    ):
        with pytest.raises(ClientError, match=rf"image\[0\].*{message}"):
            ask(prompt="what?", image=[image])
    bomb = Image.new("1", (20000, 20000))
    with pytest.raises(ClientError, match=r"image\[0\].*pixels"):
        ask(bomb, prompt="what?")
    # And it serves on.
    assert ask(picture(), prompt="What?") == shown(truth(served[0], "<image>\nWhat?", picture())[0])


def data_uri_of(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def cut(uri):
    """The same file without its second half."""
    data = base64.b64decode(uri.partition(",")[2])
    return data_uri_of(data[: len(data) // 2])
