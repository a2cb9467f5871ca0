"""`cogsmith embed`: texts into vectors, and how alike they are."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from cogsmith.cli.console import out
from cogsmith.cli.endpoints import AccessToken, AsJson, Deadline, Endpoint, ModelName, connection
from cogsmith.cli.extras import with_extras
from cogsmith.cli.inputs import parse_ids, read_prompts
from cogsmith.client import Connection, Embeddings
from cogsmith.client.client import Prompt
from cogsmith.client.options import EmbedOptions

Pooling = Literal["mean", "cls", "last", "max", "none"]
Side = Literal["left", "right"]


def command(
    endpoint: Endpoint,
    texts: Annotated[
        list[str] | None,
        typer.Option("--texts", help="The texts, one or several; file::PATH stands for what a file holds."),
    ] = None,
    ids: Annotated[
        list[str] | None,
        typer.Option("--ids", help='The texts as token ids, such as "101,4937,102", instead of --texts.'),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="What separates the texts within a file; without it a file is one text.")
    ] = None,
    layers: Annotated[
        str, typer.Option(help='Whose outputs: "last", the last hidden state; "all" layers; or numbers, such as "0,5".')
    ] = "last",
    embedding: Annotated[bool, typer.Option("--embedding", help="Give the output of the embedding too.")] = False,
    pooling: Annotated[
        Pooling | None,
        typer.Option(
            help="How a text's vectors become one; as the model was trained, if left out. none: hidden states."
        ),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize",
            help="Bring vectors to length 1, or not; as the model was trained, if left out.",
        ),
    ] = None,
    padding_side: Annotated[
        Side | None, typer.Option(help="Pad the texts to the longest of them on this side, and read the padding too.")
    ] = None,
    padding_id: Annotated[int | None, typer.Option(help="The token that pads; the model's own, if left out.")] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long for the model.")] = False,
    npz: Annotated[
        Path | None, typer.Option(help="Write all numbers to this file too, as numpy's arrays.", dir_okay=False)
    ] = None,
    deadline: Deadline = None,
    token: AccessToken = None,
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Turn texts into vectors by an encoder, and show how alike they are."""
    given = _given(texts or [], ids or [], delimiter)
    options: dict[str, Any] = {
        "layers": _layers(layers),
        "pooling": pooling,
        "normalize": normalize,
        "padding_side": padding_side,
        "padding_id": padding_id,
        "deadline": deadline,
        "embedding": embedding or None,
        "truncate": truncate or None,
    }
    asked = EmbedOptions(**{name: value for name, value in options.items() if value is not None})  # type: ignore[typeddict-item]
    found = with_extras(lambda: asyncio.run(_embed(connection(endpoint, token, None, model), given, asked)))
    if npz is not None:
        _write(found, npz)
    if as_json:
        facts = {"texts": given, "token_ids": found.token_ids, "pooling": found.pooling, "normalize": found.normalize}
        out.print_json(json.dumps({**facts, **found.outputs}))
    elif found.vectors is not None:
        out.print(_likeness(given, found.vectors))
    else:
        out.print(_shapes(found))


def _given(texts: Sequence[str], ids: Sequence[str], delimiter: str | None) -> list[Prompt]:
    if bool(texts) == bool(ids):
        raise typer.BadParameter("give either --texts or --ids")
    return [*read_prompts(texts, delimiter), *(parse_ids("--ids", one) for one in ids)]


def _layers(value: str) -> str | tuple[int, ...]:
    return value if value in ("last", "all") else parse_ids("--layers", value)


async def _embed(connection: Connection, texts: Sequence[Prompt], options: EmbedOptions) -> Embeddings:
    async with connection as client:
        return await client.embed(texts, **options)


def _write(found: Embeddings, path: Path) -> None:
    """Write the npz file: whole, or not at all. Raises MissingExtra without numpy, OSError."""
    content = found.npz()
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _likeness(texts: Sequence[Prompt], vectors: Sequence[Sequence[float]]) -> Table:
    """Return the cosine of the angle between each text's vector and those of all, numbered in their order."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("text", overflow="fold")
    for number in range(1, len(texts) + 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, (text, one) in enumerate(zip(texts, vectors, strict=True), start=1):
        table.add_row(str(number), Text(repr(text)), *(f"{_cosine(one, other):.3f}" for other in vectors))
    return table


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other) or 1.0)


def _shapes(found: Embeddings) -> Table:
    """Return what there is and of which size: numbers by the thousands are for --json and --npz."""
    table = Table("output", "texts", "tokens", "width", box=None, pad_edge=False)
    for name, values in found.outputs.items():
        by_token = found.pooling == "none"
        tokens = ", ".join(str(len(one)) for one in values) if by_token else "pooled"
        width = len(values[0][0] if by_token else values[0])
        table.add_row(name, str(len(values)), tokens, str(width))
    return table
