"""What `cogsmith generate` prints: texts, tokens, and everything as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from cogsmith.cli.console import out
from cogsmith.cli.generation import Outcome, Prompt, Row, Show
from cogsmith.client import Token
from cogsmith.client.tokenizer import ClientTokenizer

DELIMITER = "#" * 100


def printer(prompt: Prompt) -> Show:
    """Return what prints pieces of text as they come, after the prompt; that waits for the first, which may fail."""
    begun = False

    def show(piece: str) -> None:
        nonlocal begun
        typer.echo(piece if begun else _opening(prompt) + piece, nl=False)
        begun = True

    return show


def print_texts(outcome: Outcome, *, label: str = "", shown: bool = False) -> None:
    """Print each prompt with its continuation between lines of `#`, below `label`.

    The text alone may have been `shown` already.
    """
    if label:
        typer.echo(label)
    for row in outcome.rows:
        typer.echo("" if shown and row.text else _opening(row.prompt) + row.text)
    typer.echo(DELIMITER)


def print_tokens(outcome: Outcome, *, with_top: bool) -> None:
    """Print a table of tokens for each continuation."""
    for row in outcome.rows:
        out.print(_table(row.branch.tokens, outcome.tokenizer, with_top=with_top))


def facts(outcome: Outcome, *, with_top: bool) -> dict[str, Any]:
    """Return everything, in JSON's types."""
    rows = [_row_facts(row, with_top=with_top) for row in outcome.rows]
    return {"generations": rows, "report": outcome.report.facts()}


def _opening(prompt: Prompt) -> str:
    """What stands before a continuation. An answer to messages stands alone."""
    return f"{DELIMITER}\n{prompt if isinstance(prompt, str) else ''}"


def _table(tokens: Sequence[Token], tokenizer: ClientTokenizer, *, with_top: bool) -> Table:
    table = Table("token", box=None, pad_edge=False)
    table.add_column("log-probability", justify="right")
    if with_top:
        table.add_column("the likeliest")
    for token in tokens:
        top = [Text(_likeliest(token.top_logprobs or {}, tokenizer))] if with_top else []
        table.add_row(Text(_quoted(token.token, tokenizer)), f"{token.logprob:.4f}", *top)
    return table


def _likeliest(top_logprobs: Mapping[int, float], tokenizer: ClientTokenizer) -> str:
    ranked = sorted(top_logprobs.items(), key=lambda item: -item[1])
    return "  ".join(f"{_quoted(id_, tokenizer)} {math.exp(logprob):.1%}" for id_, logprob in ranked)


def _quoted(id_: int, tokenizer: ClientTokenizer) -> str:
    return repr(tokenizer.token_text(id_))


def _row_facts(row: Row, *, with_top: bool) -> dict[str, Any]:
    tokens = row.branch.tokens
    return {
        "prompt": row.prompt,
        "prompt_ids": row.prompt_ids,
        "index": row.index,
        "text": row.text,
        "ids": row.branch.ids,
        "logprobs": [token.logprob for token in tokens],
        **({"top_logprobs": [token.top_logprobs for token in tokens]} if with_top else {}),
        "finish_reason": row.branch.finish_reason,
        "stop": row.branch.stop,
    }
