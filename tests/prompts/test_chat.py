"""Chat templates: what transformers makes of them, in a sandbox of our own."""

from __future__ import annotations

import contextlib

import pytest
from transformers import PreTrainedTokenizerFast

from cogsmith.errors import RequestError
from cogsmith.predictor.inputs import TextInputs
from cogsmith.predictor.prompting import encode
from cogsmith.prompts.chat import render

from ..client.arithmetic import LETTERS

MESSAGES = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "Grüß Gott"},
    {"role": "assistant", "content": "  Hi  ", "tool_calls": [{"name": "f", "arguments": {"x": "é"}}]},
    {"role": "user", "content": "Bye"},
]
LOOPS = """{% for m in messages %}
  {% if m.role == 'system' %}{% continue %}{% endif %}
{{ m.role }}: {{ m.content | trim }}
{% if loop.index == 3 %}{% break %}{% endif %}
{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}
"""
SPECIAL = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
JSON = "{% for m in messages if m.tool_calls %}{{ m.tool_calls | tojson }}{{ m | tojson(indent=2) }}{% endfor %}"
MARKED = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
COUNTING = """{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}
{{ ns.n }}{{ dict(a=1) | tojson }}"""
# As LLaVA's own is: what is said is read from a list of parts, and one text is no such list.
PARTS = (
    "{% for m in messages %}{{ m['role'] }}: "
    "{% for part in m['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }} {% endfor %}{% endfor %}"
)
TEMPLATES = [LOOPS, SPECIAL, JSON, MARKED, COUNTING]


@pytest.mark.parametrize("template", TEMPLATES)
def test_as_transformers_does(template):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=LETTERS, bos_token="<s>", eos_token="</s>")
    expected = tokenizer.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert render(template, MESSAGES, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": None}) == expected


def test_a_template_that_knows_only_parts_is_given_parts():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=LETTERS, chat_template=PARTS)
    given = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}, *MESSAGES[2:]]
    parts = [given[0], *(one | {"content": [{"type": "text", "text": one["content"]}]} for one in MESSAGES[2:])]
    expected = tokenizer.apply_chat_template(parts, tokenize=False)
    assert "Bye" in expected
    assert render(PARTS, given, {}) == expected
    (encoded,) = encode(TextInputs(messages=given), tokenizer)
    assert encoded.ids == tuple(tokenizer.encode(expected, add_special_tokens=False))


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for m in messages %}", "endfor"),
        ("{{ messages[0].nothing.at_all }}", "nothing"),
    ],
)
def test_a_template_that_refuses(template, named):
    with pytest.raises(RequestError, match=named):
        render(template, MESSAGES, {})


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.clear() }}",
        "{{ strftime_now.__globals__ }}",
        "{{ raise_exception.__code__ }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template):
    with contextlib.suppress(RequestError):
        assert render(template, MESSAGES, {}) == ""
    assert len(MESSAGES) == 4
