"""Images that come with what the page asks."""

import json

import pytest

from cogsmith.manifest import Prompt
from cogsmith.prompts import templates

from ..engine.models import byte_tokenizer
from .demo_page import MAX_BODY, NAME, Model, asked, generated, ids

pytestmark = pytest.mark.usefixtures("no_cache")

PLACEHOLDER = "<image>"
ONE, OTHER = (f"data:image/png;base64,{content}" for content in ("AAAA", "BBBB"))


def reader(*said):
    """A model that reads images."""
    return Model(*said, image_token=PLACEHOLDER)


def sent(model):
    """The inputs of the prediction with the prompt, and that prompt."""
    (inputs,) = [inputs for inputs in model.inputs if "prompt" in inputs["ops_batch_json"]]
    ((_, payload),) = json.loads(inputs["ops_batch_json"])
    return inputs, payload["prompt"]


def user(content, *images, **more):
    return {"role": "user", "content": content, "images": images, **more}


def test_the_images_of_a_conversation_stand_where_they_were_sent(tmp_path):
    model = reader(ids("yes"))
    messages = [user("What?", ONE), {"role": "assistant", "content": "Noise."}, user("And this?", OTHER)]
    generated(model, tmp_path, messages=messages, template="llava_v1", image_transform="padded_resize")
    inputs, prompt = sent(model)
    said = [f"{PLACEHOLDER}\nWhat?", "Noise.", f"{PLACEHOLDER}\nAnd this?"]
    flat = [message | {"content": text} for message, text in zip(messages, said, strict=True)]
    assert prompt == list(ids(templates.find("llava_v1").render(flat)))
    assert (inputs["image"], inputs["image_transform"]) == ([ONE, OTHER], "padded_resize")
    # What the server says of itself is asked for without them.
    assert not any("image" in others for others in model.inputs if others is not inputs)


@pytest.mark.parametrize(
    ("said", "template", "text"),
    [
        (f"First {PLACEHOLDER}, what?", "none", f"First {PLACEHOLDER}, what?"),
        ("", "none", f"{PLACEHOLDER}\n"),
        # A template without words: nothing but the image.
        ("", "caption", f"{PLACEHOLDER}\n"),
    ],
)
def test_an_image_stands_where_the_text_says_and_may_be_alone(tmp_path, said, template, text):
    model = reader(ids("yes"))
    generated(model, tmp_path, messages=[user(said, ONE)], template=template)
    inputs, prompt = sent(model)
    assert byte_tokenizer().decode(prompt).strip() == text.strip()
    assert inputs["image"] == [ONE]
    assert "image_transform" not in inputs


def test_a_plain_text_and_options_come_with_images_too(tmp_path):
    model = reader()
    status, _ = asked(model, tmp_path, f"{NAME}/comparison", {"text": "a", "images": [ONE, OTHER], "options": ["b"]})
    assert status == 200
    inputs, prompt = sent(model)
    assert prompt == list(ids(f"{PLACEHOLDER}\n{PLACEHOLDER}\na"))
    assert inputs["image"] == [ONE, OTHER]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"text": "a", "images": ["http://localhost/secret"]}, "images"),
        ({"text": "a", "images": ["data:text/html;base64,AAAA"]}, "images"),
        ({"text": "a", "images": [ONE] * 65}, "images"),
        ({"text": "a", "images": [ONE], "image_transform": "stretch"}, "image_transform"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, body, told):
    model = reader()
    status, problem = asked(model, tmp_path, f"{NAME}/generation", body)
    assert status == 422
    assert told in problem["detail"]


def test_a_model_of_texts_is_sent_no_image(tmp_path):
    model = Model()
    status, problem = asked(model, tmp_path, f"{NAME}/generation", {"text": "a", "images": [ONE]})
    assert (status, "this model reads none" in problem["detail"]) == (422, True)
    assert not any("prompt" in inputs["ops_batch_json"] for inputs in model.inputs)


def test_the_page_is_told_what_images_it_may_send(tmp_path):
    _, described = asked(reader(), tmp_path, NAME, prompt=Prompt(template="caption"))
    told = described["images"]
    assert (told["placeholder"], told["transform"], told["most"]) == (PLACEHOLDER, "model", 64)
    assert 0 < told["bytes"] < MAX_BODY
    assert "image/png" in told["kinds"]
    assert "caption" in [template["id"] for template in described["templates"]]
    _, described = asked(Model(), tmp_path, NAME)
    assert described["images"] is None
