"""`prompt.*`: the template that is packaged with a model."""

import pytest

from cogsmith.config.load import load
from cogsmith.manifest import Prompt

OWN = "{% set stop = ['!'] %}{% for m in messages %}{{ m.content }}{% endfor %}"


def prompt_of(write, text):
    return load(write(f"[models.m]\nsource = 'hf:a/b'\n{text}\n")).models["m"].prompt


def test_a_named_template_arrives(write):
    assert prompt_of(write, "prompt.template = 'alpaca'") == Prompt(template="alpaca")
    assert prompt_of(write, "") == Prompt()


def test_a_file_s_text_is_packaged(write, tmp_path):
    (tmp_path / "mine.jinja").write_text(OWN)
    text = "prompt = {template = 'mine.jinja', system = 'Be brief.', stop = ['x'], truncate = true}"
    expected = Prompt(template="mine.jinja", text=OWN, system="Be brief.", stop=("x",), truncate=True)
    assert prompt_of(write, text) == expected


@pytest.mark.parametrize(("said", "cuts"), [("", True), ("prompt.truncate = false", False)])
def test_a_longest_text_cuts_those_that_are_longer(write, said, cuts):
    assert prompt_of(write, f"config.max_seq_len = 48\n{said}").truncate is cuts


@pytest.mark.parametrize(
    ("value", "message", "fix"),
    [
        ("alpacca", "'alpacca'", "did you mean 'alpaca'?"),
        ("missing.jinja", "'missing.jinja' cannot be read", "path"),
        ("bad.jinja", "line 2 of 'bad.jinja'", "mend"),
        ("latin.jinja", "'latin.jinja' is no UTF-8", "UTF-8"),
    ],
)
def test_a_template_that_is_none(write, tmp_path, assert_refused, value, message, fix):
    (tmp_path / "bad.jinja").write_text("{# a #}\n{% for %}")
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    text = f"[models.m]\nsource = 'hf:a/b'\nprompt.template = '{value}'\n"
    assert_refused(text, 3, "models.m.prompt.template", message, fix)
