"""Named prompt templates: one file each in `data/`, in the form of Hugging Face's chat templates.

A file says, beside the text, where an answer ends: `{% set stop = ["…"] %}`. Those of conversations and of single
instructions are LLaMA2-Accessory's, with LLaVA's and Vicuna's among them; `dolly-v2` and `falcon` are
curated-transformers'. An instruction template takes one message of the user, whose `input` is what the instruction is
about.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from cogsmith.errors import RequestError
from cogsmith.prompts import chat

_FOLDER = Path(__file__).with_name("data")
_SUFFIX = ".jinja"


@dataclass(frozen=True, slots=True)
class Template:
    """A template: its Jinja text, and the texts at which an answer ends."""

    name: str
    text: str
    stop: tuple[str, ...] = ()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        special: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """Return the prompt's text. `special` are special tokens by name. Raises RequestError where it refuses."""
        return chat.render(self.text, messages, special or {}, add_generation_prompt=add_generation_prompt)


class Packaged(Protocol):
    """What a work directory says of prompts: a `manifest.Prompt`."""

    @property
    def template(self) -> str | None:
        """The name of a template."""

    @property
    def text(self) -> str | None:
        """The packager's own template."""

    @property
    def stop(self) -> tuple[str, ...] | None:
        """The texts that end an answer, None for those of the template."""


def packaged(prompt: Packaged) -> Template | None:
    """Return the template that is packaged with a model, None where there is none. Raises RequestError as `find`."""
    if prompt.text is not None:
        found = Template(prompt.template or "packaged", prompt.text, chat.stop_texts(prompt.text))
    elif prompt.template is not None:
        found = find(prompt.template)
    else:
        return None
    return found if prompt.stop is None else replace(found, stop=prompt.stop)


def names() -> list[str]:
    """Return the names of all templates, sorted."""
    return sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}"))


@cache
def find(name: str) -> Template:
    """Return the template called `name`. Raises RequestError that lists what there is."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        fix = f"did you mean {near[0]!r}? " if near else ""
        raise RequestError(f"there is no prompt template {name!r}", fix=f"{fix}known are: {', '.join(names())}")
    text = (_FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    return Template(name, text, chat.stop_texts(text))
