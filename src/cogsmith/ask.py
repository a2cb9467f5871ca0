"""One function for any model and anything to say to it. What asks often keeps a connection: `connect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from cogsmith.client.connect import connect
from cogsmith.client.options import GenerateOptions
from cogsmith.client.prompting import Asked, encode, find_template, with_stops
from cogsmith.gateway.open_model import model_folder
from cogsmith.sources.silent import Silent


def generate(
    model: str | Path,
    asked: Asked,
    *,
    template: str | None = None,
    token: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    **options: Unpack[GenerateOptions],
) -> str:
    """Return the text with which `model` continues a text, or answers chat messages.

    `model` is an endpoint as `connect` takes it, or runs in this process: the name of a work directory, its path or
    that of a checkpoint folder, or a repository on the Hugging Face Hub. Then it is freed before this returns, and
    `model_args` go to `from_pretrained`. `template` names a prompt template for messages, in place of the model's own.
    Raises UserError where there is no such model, RequestRejected for what cannot be asked, and what a client raises.
    """
    found = None if template is None else find_template(template)
    text = str(model)
    place = f"local:{model_folder(text, root=Path(), reporter=Silent())}" if ":" not in text else text
    with connect(place, token=token, **(model_args or {})) as client:
        tokenizer = client.tokenizer()
        settings = with_stops(options, None if isinstance(asked, str) else found, tokenizer)
        return client.text(encode(asked, tokenizer, found), **settings).result()
