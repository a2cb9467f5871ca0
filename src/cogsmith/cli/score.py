"""`cogsmith score`: how likely a model finds each of several continuations."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer
from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from cogsmith.cli.console import out
from cogsmith.cli.endpoints import AccessToken, AsJson, Deadline, Endpoint, ModelName, TokenizerPath, connection
from cogsmith.cli.extras import with_extras
from cogsmith.cli.inputs import parse_ids
from cogsmith.client import Connection, ScoredOption
from cogsmith.client.client import Prompt, softmax
from cogsmith.client.options import ScoreOptions

Normalisation = Literal["sum", "mean", "none"]

_BAR_WIDTH = 30


def command(
    endpoint: Endpoint,
    prompt: Annotated[str | None, typer.Option(help="The text that the options continue.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--options", help="The continuations to compare, one or several.")
    ] = None,
    prompt_ids: Annotated[
        str | None, typer.Option(help='The prompt as token ids, such as "504,3575,282", instead of --prompt.')
    ] = None,
    option_ids: Annotated[
        list[str] | None, typer.Option("--option-ids", help="The continuations as token ids, instead of --options.")
    ] = None,
    normalise: Annotated[
        Normalisation,
        typer.Option(
            help="Probabilities among the options by the sum of each one's log-probabilities, or by their mean, "
            "so that long options compare with short ones; or none: each one's own among all texts.",
        ),
    ] = "sum",
    deadline: Deadline = None,
    tokenizer: TokenizerPath = None,
    token: AccessToken = None,
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Compare continuations of a prompt by the probability that a model gives each."""
    asked = _prompt(prompt, prompt_ids)
    continuations = _continuations(options or [], option_ids or [])
    settings: ScoreOptions = {} if deadline is None else {"deadline": deadline}
    scored = with_extras(
        lambda: asyncio.run(_score(connection(endpoint, token, tokenizer, model), asked, continuations, settings))
    )
    shares = _probabilities(scored, normalise)
    if as_json:
        facts = [_facts(*row) for row in zip(continuations, scored, shares, strict=True)]
        out.print_json(json.dumps({"prompt": asked, "normalise": normalise, "options": facts}))
    else:
        out.print(_table(continuations, scored, shares))


def _prompt(text: str | None, ids: str | None) -> Prompt:
    if ids is not None and text is None:
        return parse_ids("--prompt-ids", ids)
    if text is not None and ids is None:
        return text
    raise typer.BadParameter("give either --prompt or --prompt-ids")


def _continuations(texts: Sequence[str], ids: Sequence[str]) -> list[Prompt]:
    if bool(texts) == bool(ids):
        raise typer.BadParameter("give either --options or --option-ids")
    return [*texts, *(parse_ids("--option-ids", one) for one in ids)]


async def _score(
    connection: Connection, prompt: Prompt, options: Sequence[Prompt], settings: ScoreOptions
) -> list[ScoredOption]:
    async with connection as client:
        return await client.score(prompt, options, **settings)


def _probabilities(scored: Sequence[ScoredOption], normalise: Normalisation) -> list[float]:
    """Return each option's probability: among the options by sums or means, or with "none" by itself."""
    if normalise == "none":
        return [math.exp(option.logprob) for option in scored]
    return softmax([option.logprob if normalise == "sum" else option.mean_logprob for option in scored])


def _facts(option: Prompt, scored: ScoredOption, probability: float) -> dict[str, Any]:
    return {
        "option": option,
        "ids": list(scored.ids),
        "logprobs": [token.logprob for token in scored.tokens],
        "sum": scored.logprob,
        "mean": scored.mean_logprob,
        "probability": probability,
    }


def _table(options: Sequence[Prompt], scored: Sequence[ScoredOption], shares: Sequence[float]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("option", overflow="fold")
    for name in ("tokens", "sum", "mean", "probability"):
        table.add_column(name, justify="right", no_wrap=True)
    if out.is_terminal:
        table.add_column("")
    for option, one, share in zip(options, scored, shares, strict=True):
        bar = [Bar(1.0, 0.0, share, width=_BAR_WIDTH)] if out.is_terminal else []
        figures = (str(len(one.tokens)), f"{one.logprob:.4f}", f"{one.mean_logprob:.4f}", f"{share:.2%}")
        table.add_row(Text(repr(option)), *figures, *bar)
    return table
