"""Chat messages -> a prompt's text, through a template: the model's own, or a named one of `templates`.

The template is Jinja from a stranger, so it runs in a sandbox. What it may use is what transformers documents for chat
templates (`apply_chat_template`): loop controls, `tojson`, `raise_exception`, `strftime_now` and generation blocks.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from cogsmith.errors import RequestError
from cogsmith.prompts.messages import in_parts, with_input

_PROBE = "a probe"


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    special: Mapping[str, Any],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """Return the prompt's text. `special` are the special tokens by name.

    With `add_generation_prompt` it goes on to where the assistant's answer begins. Raises RequestError where the
    template takes no such messages, or is none.
    """
    tokens = {name: value for name, value in special.items() if isinstance(value, str) and name != "chat_template"}
    try:
        return _rendered(template, as_known(messages, template), add_generation_prompt, tokens)
    except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
        raise RequestError(f"the chat template refuses these messages: {error}") from error


def as_known(messages: Sequence[Mapping[str, Any]], template: str) -> list[Mapping[str, Any]]:
    """Return messages in the form that the template knows: an instruction with its input, contents as texts or parts.

    Templates of some models that read images, LLaVA's among them, pass over a content that is one text.
    """
    messages = with_input(messages, template)
    return [in_parts(message) for message in messages] if _wants_parts(template) else messages


@functools.lru_cache(64)
def _wants_parts(template: str) -> bool:
    """Whether it writes what a person says only where that is a list of parts: that shows when it is used."""
    return not _writes(template, _PROBE) and _writes(template, [{"type": "text", "text": _PROBE}])


def _writes(template: str, content: Any) -> bool:
    try:
        return _PROBE in _rendered(template, [{"role": "user", "content": content}], True, {})
    except (jinja2.TemplateError, TypeError, KeyError, ValueError):
        return False


def _rendered(
    template: str, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, tokens: Mapping[str, str]
) -> str:
    made = _environment().from_string(template)
    return made.render(messages=messages, add_generation_prompt=add_generation_prompt, **tokens)


def stop_texts(template: str) -> tuple[str, ...]:
    """Return the texts at which an answer ends, which a named template states: `{% set stop = ["…"] %}`."""
    assignments = _environment().parse(template).find_all(jinja2.nodes.Assign)
    stated = [
        assignment.node.as_const()
        for assignment in assignments
        if isinstance(assignment.target, jinja2.nodes.Name)
        and assignment.target.name == "stop"
        and isinstance(assignment.node, jinja2.nodes.Expr)
    ]
    return tuple(stated[0]) if stated else ()


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationBlocks]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise, strftime_now=_strftime_now)
    return environment


class _GenerationBlocks(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 (as the base class has it)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Return what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: Any, **options: Any) -> str:
    # Jinja's own filter escapes for HTML.
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
