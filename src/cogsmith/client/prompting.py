"""From what a person says to a prompt's ids, on the caller's side: where the server is told tokens alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cogsmith.client.options import GenerateOptions
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.errors import RequestError, RequestRejected
from cogsmith.prompts import templates
from cogsmith.prompts.templates import Template

Asked = str | Sequence[Mapping[str, Any]]
"""A text to continue, or chat messages to answer."""


def find_template(name: str) -> Template:
    """Return the prompt template called `name`. Raises RequestRejected that lists what there is."""
    try:
        return templates.find(name)
    except RequestError as error:
        raise RequestRejected(error.message, fix=error.fix) from error


def encode(asked: Asked, tokenizer: ClientTokenizer, template: Template | None = None) -> tuple[int, ...]:
    """Return the ids. Messages go through `template`, or the model's own. Raises RequestRejected where none fits."""
    return tokenizer.encode(asked) if isinstance(asked, str) else tokenizer.encode_chat(asked, template)


def with_stops(options: GenerateOptions, template: Template | None, tokenizer: ClientTokenizer) -> GenerateOptions:
    """Return the options with the texts that end an answer in `template`, unless they name some themselves.

    A text that is one special token is given as its id: it has no text when it is decoded.
    """
    if template is None or not template.stop or "stop" in options:
        return options
    stop = tokenizer.split_stops(template.stop)
    return {**options, "stop": [*stop.texts, *((id_,) for id_ in stop.ids)]}
