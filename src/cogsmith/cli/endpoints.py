"""What the commands that call a served model have in common: which model, and as whom."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cogsmith.cli import folders
from cogsmith.cli.console import err
from cogsmith.client import Connection, connect
from cogsmith.client.retrying import log as retries

_LOCAL = "local:"
_NOTED_WAIT = 1.0
"""Seconds from which on a user may wonder why nothing happens."""

Endpoint = Annotated[
    str,
    typer.Argument(
        help="replicate:ORG/MODEL[/VERSION], replicate:deployment/ORG/NAME, http://HOST:PORT (a Cog server), "
        "ws://HOST:PORT or HOST:PORT (LMTP); or a model to run in this process: the name of a work directory, its path "
        "or that of a checkpoint folder (also as local:...), or a repository on the Hugging Face Hub.",
    ),
]
AccessToken = Annotated[
    str | None,
    typer.Option(
        "--token", help="The API token. REPLICATE_API_TOKEN is the better place: others can read command lines."
    ),
]
TokenizerPath = Annotated[
    str | None,
    typer.Option("--tokenizer", help="A tokenizer.json or its folder, in place of the one that the server sends."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", help="The model's name, which LMQL's own server wants to hear.")
]
Deadline = Annotated[
    float | None, typer.Option("--deadline", help="Most seconds the calls may take, waiting included.", min=0.001)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def connection(
    endpoint: str,
    token: str | None,
    tokenizer: str | None,
    model: str | None,
    images: Sequence[str] = (),
    **model_args: Any,
) -> Connection:
    """Return a connection to an endpoint as `connect` takes it, or to a model that is run in this process.

    What is tried again later is said on stderr. Raises what `connect` raises, and UserError where there is no such
    model.
    """
    retries.setLevel(logging.INFO)
    retries.addHandler(_RETRIES)
    return connect(_place(endpoint), token=token, tokenizer=tokenizer, model=model, images=images, **model_args)


def is_local(endpoint: str) -> bool:
    """Whether the model is run in this process."""
    return ":" not in endpoint or endpoint.startswith((_LOCAL, "hf:"))


def _place(endpoint: str) -> str:
    scheme, has_scheme, name = endpoint.partition(":")
    if not has_scheme:
        return f"{_LOCAL}{folders.model_folder(endpoint)}"
    if scheme == "hf":
        return f"{_LOCAL}{folders.model_folder(name)}"
    # A folder of that very name goes first, as it always did.
    if f"{scheme}:" == _LOCAL and not Path(name).expanduser().is_dir():
        return f"{_LOCAL}{folders.find(name)}"
    return endpoint


class _RetryNotes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Say on stderr that there is a wait worth knowing of."""
        if getattr(record, "wait", 0.0) >= _NOTED_WAIT:
            err.print(record.getMessage(), style="dim", markup=False)


_RETRIES = _RetryNotes()
