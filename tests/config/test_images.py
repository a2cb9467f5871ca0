"""`task = "image-text"` and what does not go with it."""

import pytest

from cogsmith.config.load import load
from cogsmith.workdir import pins, render


def test_it_arrives_in_the_work_directory(write):
    text = "[models.m]\nsource = 'hf:a/b'\ntask = 'image-text'\nimage_transform = 'padded_resize'\nquant.bits = 4\n"
    project = load(write(text))
    model = project.models["m"]
    assert (model.task, model.image_transform, model.quant.at) == ("image-text", "padded_resize", "load")
    files = render.render(model, "hf:a/b@c", project)
    assert b'"task": "image-text"' in files["model.json"].content
    assert b'"image_transform": "padded_resize"' in files["model.json"].content
    assert b"image: list[cog.Path]" in files["predict.py"].content
    assert any(line.startswith("pillow==") for line in pins.requirements(model))


def test_a_model_of_texts_has_nothing_of_it(write):
    project = load(write("[models.m]\nsource = 'hf:a/b'\n"))
    model = project.models["m"]
    assert b"image:" not in render.render(model, "hf:a/b@c", project)["predict.py"].content
    assert not any(line.startswith("pillow") for line in pins.requirements(model))


@pytest.mark.parametrize(
    ("text", "key", "message", "fix"),
    [
        ("engine = 'vllm'", "engine", "'vllm'", "transformers"),
        ("format = 'gguf'", "format", "'gguf'", "hf"),
        ("quant = {bits = 8, at = 'build'}", "quant.at", "models of texts only", "load"),
    ],
)
def test_what_does_not_go_with_images(write, assert_refused, text, key, message, fix):
    text = f"[models.m]\nsource = 'hf:a/b'\n{text}\ntask = 'image-text'\n"
    assert_refused(text, 3, f"models.m.{key}", message, fix)


def test_a_transform_without_images(assert_refused):
    text = "[models.m]\nsource = 'hf:a/b'\nimage_transform = 'padded_resize'\n"
    assert_refused(text, 3, "models.m.image_transform", "reads no images", "image-text")
