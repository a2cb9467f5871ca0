"""Named templates: byte for byte what the original programs write (`original_templates.json`)."""

import json
from pathlib import Path

import pytest
from jinja2 import Environment
from transformers import PreTrainedTokenizerFast

from cogsmith.errors import RequestError
from cogsmith.prompts import templates
from cogsmith.prompts.messages import from_instruction, from_questions, with_system

from ..client.arithmetic import LETTERS

ORIGINAL = json.loads(Path(__file__).with_name("original_templates.json").read_text(encoding="utf-8"))
CONVERSATIONS = ORIGINAL["conversation"]
STYLES = {"None": "none"}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_are_the_originals(name):
    template, expected = templates.find(name), CONVERSATIONS[name]
    assert template.render(from_questions(ORIGINAL["qas"])) == expected["open"]
    assert template.render(from_questions([["What's in the image?", None]])) == expected["single"]
    closed = from_questions([["a", "b"], ["c", "d"]])
    assert template.render(closed, add_generation_prompt=False) == expected["closed"]
    assert template.stop == (expected["response_end_signal"],)


@pytest.mark.parametrize("style", ORIGINAL["format_prompt"])
def test_instructions_are_the_originals(style):
    template, expected = templates.find(STYLES.get(style, style)), ORIGINAL["format_prompt"][style]
    assert template.render(from_instruction("Do X.")) == expected["no_input"]
    assert template.render(from_instruction("Do X.", "")) == expected["blank_input"]
    assert template.render(from_instruction("Do X.", "Y")) == expected["input"]


def test_dolly_and_falcon_are_curated_transformers():
    intro = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    dolly = templates.find("dolly-v2")
    assert dolly.render(from_instruction("Hi\nyou")) == f"{intro}\n\n### Instruction:\nHi\nyou\n\n### Response:\n"
    assert dolly.stop == ("### End",)
    assert templates.find("falcon").render(from_instruction("  Hi \n")) == "Hi\n"


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_system_prompt_takes_the_place_of_the_templates_own(name):
    given = templates.find(name).render(from_questions([["q", None]], system="Be brief."))
    assert given.startswith("Be brief.")
    assert given.replace("Be brief.", "", 1) == templates.find(name).render(from_questions([["q", None]])).replace(
        system_of(name), "", 1
    )


def system_of(name):
    """What stands before the first question."""
    single = CONVERSATIONS[name]["single"]
    return single[: single.index("\n\n###" if CONVERSATIONS[name]["sep2"] is None else "  USER")]


def test_what_an_instruction_is_about_is_never_lost_in_a_conversation():
    said = templates.find("default").render(from_instruction("Translate.", "Guten Tag"))
    assert said == templates.find("default").render([{"role": "user", "content": "Translate.\n\nGuten Tag"}])


@pytest.mark.parametrize("name", templates.names())
def test_transformers_renders_them_alike(name):
    """A template may be packed as a tokenizer's chat template."""
    template = templates.find(name)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=LETTERS)
    messages = from_instruction("Grüß {{ Gott }}", "<in>" if "['input']" in template.text else "")
    expected = tokenizer.apply_chat_template(
        messages, chat_template=template.text, tokenize=False, add_generation_prompt=True
    )
    assert template.render(messages) == expected


@pytest.mark.parametrize("name", templates.names())
def test_templates_parse_and_are_one_file_each(name):
    assert Environment(extensions=["jinja2.ext.loopcontrols"]).parse(templates.find(name).text)


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("alpaca", from_questions([["a", "b"], ["c", None]])),
        ("alpaca", from_instruction("x", system="Be brief.")),
        ("default", [{"role": "assistant", "content": "b"}]),
        ("vicuna_v1_1", [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
        ("default", [{"role": "user"}]),
    ],
)
def test_a_template_says_what_it_does_not_take(name, messages):
    with pytest.raises(RequestError, match="refuses these messages"):
        templates.find(name).render(messages)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(RequestError) as refused:
        templates.find("alpacca")
    assert "'alpacca'" in refused.value.message
    assert refused.value.fix.startswith("did you mean 'alpaca'? known are: alpaca, bair_v1,")


@pytest.mark.parametrize(
    ("qas", "named"),
    [
        ([["a", None], ["b", None]], "'a'"),
        ([["a"]], r"\['a'\]"),
        (["ab"], "'ab'"),
        ([["a", 3]], "3"),
        ([[1, "x"]], "1"),
    ],
)
def test_questions_that_are_none(qas, named):
    with pytest.raises(RequestError, match=named):
        from_questions(qas)


def test_a_second_system_prompt_is_refused():
    with pytest.raises(RequestError, match="twice"):
        with_system([{"role": "system", "content": "a"}], "b")
