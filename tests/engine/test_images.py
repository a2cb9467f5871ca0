"""Prompts with images: tiny random models of many families against transformers' own `generate`."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from transformers import LlavaConfig

from cogsmith.engine.images import Pictures, images_of
from cogsmith.engine.loader import load
from cogsmith.engine.request import GenerateRequest, ScoreRequest
from cogsmith.engine.rows.choose import ALL
from cogsmith.engine.transformers_engine import TransformersEngine
from cogsmith.errors import RequestError, UserError
from cogsmith.manifest import Limits

from .models import plain_logprobs, run
from .vision import CLIP, FAMILIES, generated, loaded, picture, save, tokenizer

NEW = 10
PROMPTS = (
    ("{0}\nWhat is it? ", ((60, 40),)),
    ("Describe it at some length, please: {0} and then say no more. ", ((40, 60),)),
    ("One {0}, two {0}, three. ", ((64, 64), (60, 40))),
)


def asked(model):
    """Prompts of one and of two images: ids, media, and what transformers generates from the same text and pixels."""
    made = []
    for text, sizes in PROMPTS:
        text = text.format(model.images.token)
        if isinstance(model.images.processor, transformers.MllamaProcessor):
            text = model.tokenizer.bos_token + text  # which it would put there itself
        pictures = [picture(seed, size) for seed, size in enumerate(sizes)]
        inputs = model.images.processor(text=[text], images=pictures, return_tensors="pt")
        ids, media = Pictures(model.images, pictures).read(text, special=True)
        assert list(ids) == inputs["input_ids"][0].tolist()
        expanded, same = Pictures(model.images, pictures).expand(model.tokenizer.encode(text))
        assert expanded == ids
        assert all(torch.equal(same.values[name], value) for name, value in media.values.items())
        assert same.values.keys() == media.values.keys()
        made.append((ids, media, *generated(model.model, inputs, NEW)))
    return made


@pytest.mark.parametrize("back_ends", [ALL, ("solo",)])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "paligemma"])
def test_family_equals_plain_transformers(tmp_path, family, back_ends):
    model = loaded(tmp_path, family)
    truth = asked(model)
    text = tuple(range(40, 80))
    engine = TransformersEngine(model, Limits(max_batch_size=5), max_prompt_tokens_per_step=24, back_ends=back_ends)
    generate = [GenerateRequest(ids, NEW, media=media, eos_ids=frozenset()) for ids, media, _, _ in truth]
    score = [ScoreRequest(ids, tuple(tokens), media=media) for ids, media, tokens, _ in truth]
    *results, plain = run(engine, *generate, *score, ScoreRequest(text[:20], text[20:]))
    engine.close()
    batched = back_ends is ALL and family != "mllama"  # which attends to images at every pass
    assert engine.info.details["runner"] == ("padded" if batched else "solo")
    for events, (_, _, tokens, logprobs) in zip(results, [*truth, *truth], strict=True):
        assert [event.token for event in events] == tokens
        expected = [row[token].item() for row, token in zip(logprobs, tokens, strict=True)]
        assert [event.logprob for event in events] == pytest.approx(expected, abs=1e-4)
    rows = plain_logprobs(model.model, text)[19:-1]
    expected = [row[token].item() for row, token in zip(rows, text[20:], strict=True)]
    assert [event.logprob for event in plain] == pytest.approx(expected, abs=1e-4)


def test_a_row_that_lost_its_memory_is_computed_again(tmp_path):
    model = loaded(tmp_path)
    ids, media = Pictures(model.images, [picture()]).read("<image>\nWhat?", special=True)
    tokens, logprobs = generated(
        model.model, {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones((1, len(ids))), **media.values}, 60
    )
    page = 16 * 2 * 3 * 2 * 8 * 4
    engine = TransformersEngine(model, Limits(max_batch_size=3, kv_cache_bytes=8 * page))
    preempted = []
    scheduler = engine._stepper.scheduler
    preempt = scheduler._preempt
    scheduler._preempt = lambda sequence: (preempted.append(sequence), preempt(sequence))
    results = run(engine, *[GenerateRequest(ids, 60, media=media, eos_ids=frozenset())] * 3)
    engine.close()
    assert preempted
    expected = [row[token].item() for row, token in zip(logprobs, tokens, strict=True)]
    for events in results:
        assert [event.token for event in events] == tokens
        assert [event.logprob for event in events] == pytest.approx(expected, abs=1e-4)


def test_a_model_that_reads_prompts_in_both_directions_is_refused(tmp_path):
    with pytest.raises(UserError, match="both directions"):
        TransformersEngine(loaded(tmp_path, "paligemma"), Limits())


def test_a_model_that_reads_no_text_without_an_image_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read a text alone: .*pixel_values"):
        TransformersEngine(loaded(tmp_path, "blip2"), Limits())


def test_a_processor_that_needs_another_package_names_it(tmp_path):
    save(tmp_path)
    stated = json.loads((tmp_path / "processor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps(stated | {"processor_class": "PixtralProcessor"}))
    with pytest.raises(UserError, match=r"(?s)processor cannot be loaded: .*Torchvision"):
        load(tmp_path, {}, name="llava", task="image-text")


def test_a_back_end_that_loses_the_image_is_refused(tmp_path, monkeypatch):
    from cogsmith.engine.rows.forward import Behind, Forward

    model = loaded(tmp_path)
    right = Forward.with_media

    def wrong(self, ids, media, cache, *, num_wanted):
        right(self, ids, media, cache, num_wanted=num_wanted)
        return self(ids, model.new_cache(), num_wanted=num_wanted), Behind()

    monkeypatch.setattr(Forward, "with_media", wrong)
    with pytest.raises(UserError, match="otherwise than transformers"):
        TransformersEngine(model, Limits())


class NamesPatches(transformers.LlavaProcessor):
    """As Llama 4's: the placeholder of an image is one of its tokens too, and its patches have another."""

    def replace_image_token(self, image_inputs, image_idx, **kwargs):
        return "<start><image>" + "<patch>" * 3 + "<end>"


def test_a_placeholder_that_is_part_of_its_image_is_told_from_it():
    words = tokenizer("<image>", "<patch>", "<start>", "<end>")
    processor = NamesPatches(transformers.CLIPImageProcessorPil(**CLIP), words, patch_size=8)
    token, patch, start, end = words.convert_tokens_to_ids(["<image>", "<patch>", "<start>", "<end>"])
    pictures = Pictures(images_of(processor, LlavaConfig(image_token_index=patch)), [picture(0), picture(1)])
    whole, media = pictures.read("a<image>b<image>", special=False)
    image = (start, token, patch, patch, patch, end)
    assert whole == (words.convert_tokens_to_ids("a"), *image, words.convert_tokens_to_ids("b"), *image)
    for ids in (words.encode("a<image>b<image>", add_special_tokens=False), whole):
        expanded, same = pictures.expand(ids)
        assert expanded == whole
        assert torch.equal(same.values["pixel_values"], media.values["pixel_values"])
    with pytest.raises(RequestError, match="2 images"):
        pictures.expand(whole[: len(image) + 2])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_told_of_each_token_follows_from_its_id(tmp_path, family):
    # PaliGemma's kinds tell a question from its answer, others' an image from text.
    assert loaded(tmp_path, family).images.untold == ({"token_type_ids"} if family == "paligemma" else set())


def test_ids_are_refused_where_only_the_processor_knows_what_to_say_of_each(tmp_path):
    images = replace(loaded(tmp_path).images, untold=frozenset({"image_embeds_position_mask"}))
    pictures = Pictures(images, [picture()])
    ids, _ = pictures.read("<image>What?", special=True)
    with pytest.raises(RequestError, match="image_embeds_position_mask of each token") as refused:
        pictures.expand(ids)
    assert refused.value.fix == "send prompt or messages, short enough, and no ids"
    assert Pictures(images, []).expand((1, 2)) == ((1, 2), None)


def test_ids_take_placeholders_or_all_tokens(tmp_path):
    model = loaded(tmp_path)
    token = model.images.token_id
    pictures = Pictures(model.images, [picture(0), picture(1)])
    ids, media = pictures.expand((1, token, 2, token, 3))
    assert ids == (1, *[token] * 16, 2, *[token] * 16, 3)
    again, same = pictures.expand(ids)
    assert again == ids
    assert torch.equal(same.values["pixel_values"], media.values["pixel_values"])
    for wrong, named in (((1, 2), "0 image placeholders"), ((token,), "1 image placeholders"), (ids[:-3], "30 image")):
        with pytest.raises(RequestError, match=rf"(?s){named}.*2 images are given"):
            pictures.expand(wrong)
    with pytest.raises(RequestError, match=r"(?s)1 image placeholders.*0 images"):
        Pictures(model.images, []).expand((token,))


def test_what_is_cut_is_never_of_an_image(tmp_path):
    model = loaded(tmp_path)
    token = model.images.token_id
    pictures = Pictures(model.images, [picture()])
    ids, media = pictures.expand((1, 2, token, 3, 4, 5))
    assert pictures.shortened(ids, media, 18)[0] == (*[token] * 16, 4, 5)
    assert pictures.shortened(ids, media, 16)[0] == (token,) * 16
    assert pictures.shortened(ids, media, 99)[0] == ids
    with pytest.raises(RequestError, match="the images take 16 tokens, and there is room for 15"):
        pictures.shortened(ids, media, 15)
