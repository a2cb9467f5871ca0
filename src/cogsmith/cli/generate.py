"""`cogsmith generate`: text from a served model, and how long it took."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cogsmith.cli.console import err, out
from cogsmith.cli.endpoints import AccessToken, AsJson, Deadline, Endpoint, ModelName, TokenizerPath, connection
from cogsmith.cli.extras import with_extras
from cogsmith.cli.generation import Outcome, Prompt, Row, Show, generate
from cogsmith.cli.inputs import read_constraint, read_messages, read_prompts
from cogsmith.client import Token
from cogsmith.client.options import GenerateOptions
from cogsmith.client.tokenizer import ClientTokenizer

_DELIMITER = "#" * 100


def command(
    endpoint: Endpoint,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompts", "--prompt", help="Texts to continue, one or several; file::PATH reads them."),
    ] = None,
    prompt_delimiter: Annotated[
        str | None, typer.Option(help="What separates the prompts in a file; without it, a file is one prompt.")
    ] = None,
    messages: Annotated[
        str | None, typer.Option(help="Chat messages to answer instead: JSON, a file of it, or - for stdin.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "--max_new_tokens", help="Most tokens of a continuation.", min=1)
    ] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.", min=0)] = 1.0,
    top_p: Annotated[
        float, typer.Option("--top-p", "--top_p", help="Sample from the best tokens of this probability.", max=1)
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option("--top-k", "--top_k", help="Sample from so many best tokens; 0 is off.", min=0)
    ] = 50,
    seed: Annotated[
        int | None, typer.Option(help="Makes draws repeatable. By default 42, where the server can.", min=0)
    ] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="Texts that end a continuation.")] = None,
    regex: Annotated[str | None, typer.Option(help="A regular expression that the whole continuation matches.")] = None,
    json_schema: Annotated[
        str | None, typer.Option(help="A JSON schema that the continuation keeps to: JSON, or a file of it.")
    ] = None,
    lark: Annotated[
        str | None, typer.Option(help="A grammar that the continuation keeps to: Lark, or a file of it.")
    ] = None,
    choice: Annotated[list[str] | None, typer.Option("--choice", help="Texts, of which it is one.")] = None,
    n: Annotated[int, typer.Option("--n", help="Continuations of each prompt.", min=1, max=128)] = 1,
    stream: Annotated[bool, typer.Option("--stream", help="Print a single prompt's text while it comes.")] = False,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="List each token with its log-probability.")] = False,
    top_logprobs: Annotated[
        int, typer.Option("--top-logprobs", help="List so many of the likeliest beside each token.", min=0)
    ] = 0,
    warmup: Annotated[bool, typer.Option("--warmup", help="Generate once before, untimed.")] = False,
    deadline: Deadline = None,
    tokenizer: TokenizerPath = None,
    token: AccessToken = None,
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Continue prompts, all in one batch; print the texts, and on stderr a latency report."""
    asked = _asked(prompts, prompt_delimiter, messages)
    if stream and (as_json or n > 1 or len(asked) > 1):
        raise typer.BadParameter("--stream is for a single prompt with a single continuation, without --json")
    options: GenerateOptions = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "n": n,
        "top_logprobs": top_logprobs,
    }
    if seed is not None:
        options["seed"] = seed
    if stop:
        options["stop"] = stop
    if constraint := read_constraint(regex, json_schema, lark, choice):
        options["constraint"] = constraint
    if deadline is not None:
        options["deadline"] = deadline
    show = _printer(_opening(asked[0])) if stream else None
    try:
        outcome = with_extras(
            lambda: asyncio.run(
                generate(connection(endpoint, token, tokenizer, model), asked, options, warmup=warmup, show=show)
            )
        )
        if as_json:
            # Not through rich, which takes its time to colour as many numbers as there may be here.
            typer.echo(json.dumps(_facts(outcome, with_top=top_logprobs > 0)))
            return
        _print_texts(outcome, shown=stream)
        if logprobs or top_logprobs:
            _print_tokens(outcome, with_top=top_logprobs > 0)
    except BrokenPipeError:
        out.on_broken_pipe()
    for line in outcome.report.lines():
        err.print(line, style="dim", markup=False)


def _asked(prompts: Sequence[str] | None, delimiter: str | None, messages: str | None) -> list[Prompt]:
    """Return what to generate from. Raises UserError, and typer's usage error where nothing or too much is given."""
    if bool(prompts) == (messages is not None):
        raise typer.BadParameter("give either --prompts TEXT... or --messages FILE")
    if messages is not None:
        return [read_messages(messages)]
    return list(read_prompts(prompts or [], delimiter))


def _opening(prompt: Prompt) -> str:
    """What stands before a continuation. An answer to messages stands alone."""
    return f"{_DELIMITER}\n{prompt if isinstance(prompt, str) else ''}"


def _printer(opening: str) -> Show:
    """Return what prints pieces of text as they come, after `opening`; that waits for the first, which may fail."""
    begun = False

    def show(piece: str) -> None:
        nonlocal begun
        typer.echo(piece if begun else opening + piece, nl=False)
        begun = True

    return show


def _print_texts(outcome: Outcome, *, shown: bool) -> None:
    """Print each prompt with its continuation between lines of `#`; the text alone may have been `shown` already."""
    for row in outcome.rows:
        typer.echo("" if shown and row.text else _opening(row.prompt) + row.text)
    typer.echo(_DELIMITER)


def _print_tokens(outcome: Outcome, *, with_top: bool) -> None:
    """Print a table of tokens for each continuation."""
    for row in outcome.rows:
        out.print(_table(row.branch.tokens, outcome.tokenizer, with_top=with_top))


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


def _facts(outcome: Outcome, *, with_top: bool) -> dict[str, Any]:
    rows = [_row_facts(row, with_top=with_top) for row in outcome.rows]
    return {"generations": rows, "report": outcome.report.facts()}


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
