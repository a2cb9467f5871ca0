"""`cogsmith generate`: text from a served model, and how long it took."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from cogsmith.cli import foreign_options, settings
from cogsmith.cli.console import err, out
from cogsmith.cli.endpoints import (
    AccessToken,
    AsJson,
    Deadline,
    Endpoint,
    ModelName,
    TokenizerPath,
    connection,
    is_local,
)
from cogsmith.cli.extras import with_extras
from cogsmith.cli.generate_output import facts, print_texts, print_tokens, printer
from cogsmith.cli.generation import Outcome, generate
from cogsmith.cli.inputs import Question, read_constraint
from cogsmith.client.options import GenerateOptions

_SAMPLED = 1.0
"""The temperature where nothing is said of it."""


def command(
    context: typer.Context,
    endpoint: Endpoint,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompts", "--prompt", help="Texts to continue, one or several; file::PATH reads them, - reads stdin."
        ),
    ] = None,
    prompt_delimiter: Annotated[
        str | None,
        typer.Option(
            "--prompt-delimiter",
            "--prompt_delimiter",
            help="What separates the prompts in a file; without it, a file is one prompt.",
        ),
    ] = None,
    messages: Annotated[
        str | None, typer.Option(help="Chat messages to answer instead: JSON, a file of it, or - for stdin.")
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="An instruction to follow instead.")] = None,
    input_: Annotated[str, typer.Option("--input", help="What the instruction is about; for a --template.")] = "",
    system_prompt: Annotated[
        str, typer.Option("--system-prompt", "--system_prompt", help="What the model is told before a chat.")
    ] = "",
    template: Annotated[
        str | None, typer.Option(help="A named prompt template, in place of the model's own; prompts are instructions.")
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", help="Image files that every prompt is about, for a model that reads images."),
    ] = None,
    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens", "--max-new-tokens", "--max_new_tokens", help="Most tokens of a continuation.", min=1
        ),
    ] = 100,
    min_tokens: Annotated[
        int,
        typer.Option("--min-tokens", "--min_new_tokens", help="Before so many, nothing ends a continuation.", min=0),
    ] = 0,
    temperature: Annotated[
        list[float] | None, typer.Option(help="0 takes the likeliest token; 1 by default, or several.", min=0)
    ] = None,
    top_p: Annotated[
        list[float] | None,
        typer.Option(
            "--top-p", "--top_p", help="Sample from the best tokens of this probability; 1, or several.", max=1
        ),
    ] = None,
    top_k: Annotated[
        list[int] | None,
        typer.Option("--top-k", "--top_k", help="Sample from so many best tokens, 0 is off; 50, or several.", min=0),
    ] = None,
    repetition_penalty: Annotated[
        list[float] | None,
        typer.Option(
            "--repetition-penalty",
            "--repetition_penalty",
            help="Makes what stands in prompt and continuation less likely; 1 is off. One or several.",
        ),
    ] = None,
    presence_penalty: Annotated[
        float | None,
        typer.Option("--presence-penalty", "--presence_penalty", help="Taken from the logits of what has come."),
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        typer.Option("--frequency-penalty", "--frequency_penalty", help="The same, for each time that it has come."),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            "--seed", "--seeds", help="Makes draws repeatable. By default 42, where the server can; or several.", min=0
        ),
    ] = None,
    do_sample: Annotated[
        bool | None,
        typer.Option(
            "--do-sample/--no-do-sample", "--do_sample/--no-do_sample", help="Draw, or take the likeliest token."
        ),
    ] = None,
    eos_token_id: Annotated[
        int | None,
        typer.Option(
            "--eos-token-id",
            "--eos_token_id",
            help="The token that ends a continuation, in place of the model's own.",
            min=0,
        ),
    ] = None,
    pad_token_id: Annotated[
        int | None,
        typer.Option(
            "--pad-token-id", "--pad_token_id", help="Taken from scripts that name one: no row is padded.", min=0
        ),
    ] = None,
    use_cache: Annotated[
        bool,
        typer.Option(
            "--use-cache/--no-use-cache", "--use_cache/--no-use_cache", help="The same: texts are equal either way."
        ),
    ] = True,
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
    max_batch_size: Annotated[
        int | None,
        typer.Option("--max-batch-size", "--max_batch_size", help="Prompts at once; all, if left out.", min=1),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print a single prompt's text while it comes.")] = False,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="List each token with its log-probability.")] = False,
    top_logprobs: Annotated[
        int, typer.Option("--top-logprobs", help="List so many of the likeliest beside each token.", min=0)
    ] = 0,
    warmup: Annotated[bool, typer.Option("--warmup/--no-warmup", help="Generate once before, untimed.")] = False,
    deadline: Deadline = None,
    tokenizer: TokenizerPath = None,
    token: AccessToken = None,
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Continue prompts, all in one batch; print the texts, and on stderr a latency report.

    Of temperature, top_p, top_k, repetition_penalty and seed several values may be given: each combination is a run,
    printed below its settings. For a model in this process, any further --KEY VALUE goes to from_pretrained.
    """
    question = Question(prompts, prompt_delimiter, messages, instruction, input_, system_prompt, template)
    chosen_template, asked = question.read()
    known = [option.lstrip("-") for parameter in context.command.params for option in parameter.opts]
    arguments = foreign_options.read(context.args, known, is_local=is_local(endpoint))
    options: GenerateOptions = {"n": n, "top_logprobs": top_logprobs}
    more: dict[str, Any] = {
        "min_tokens": min_tokens or None,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "stop": stop or None,
        "eos_ids": None if eos_token_id is None else [eos_token_id],
        "constraint": read_constraint(regex, json_schema, lark, choice) or None,
        "deadline": deadline,
    }
    options.update({name: value for name, value in more.items() if value is not None})  # type: ignore[typeddict-item]
    runs, changing = settings.product(
        options,
        {
            "max_tokens": [max_tokens],
            "temperature": _temperatures(temperature or [_SAMPLED], do_sample),
            "top_p": top_p or [1.0],
            "top_k": top_k or [50],
            "repetition_penalty": repetition_penalty or None,
            "seed": seed or None,
        },
    )
    is_single = len(runs) * len(asked) * n == 1
    if stream and (as_json or not is_single):
        raise typer.BadParameter(
            "--stream is for a single prompt with a single continuation and single settings, without --json"
        )
    show = printer(asked[0]) if stream else None

    def work() -> list[Outcome]:
        opened = connection(endpoint, token, tokenizer, model, image or (), **arguments)
        return asyncio.run(
            generate(opened, asked, runs, template=chosen_template, batch_size=max_batch_size, warmup=warmup, show=show)
        )

    try:
        outcomes = with_extras(work)
        if as_json:
            _print_json(outcomes, with_top=top_logprobs > 0)
            return
        for outcome in outcomes:
            label = settings.label(outcome.report.generate_kwargs, changing)
            print_texts(outcome, label=label, shown=stream)
            if logprobs or top_logprobs:
                print_tokens(outcome, with_top=top_logprobs > 0)
            for line in [label, *outcome.report.lines()] if label else outcome.report.lines():
                err.print(line, style="dim", markup=False)
    except BrokenPipeError:
        out.on_broken_pipe()


def _print_json(outcomes: Sequence[Outcome], *, with_top: bool) -> None:
    """Print one object: a run, or a list of them."""
    runs = [facts(outcome, with_top=with_top) for outcome in outcomes]
    # Not through rich, which takes its time to colour as many numbers as there may be here.
    typer.echo(json.dumps(runs[0] if len(runs) == 1 else {"runs": runs}))


def _temperatures(given: Sequence[float], do_sample: bool | None) -> Sequence[float]:
    """Return the temperatures. Not to sample is 0; to sample is not."""
    if do_sample is False:
        return [0.0]
    return [number or _SAMPLED for number in given] if do_sample else given
