"""`cogsmith predict`: one prediction through the real Cog runtime, no Docker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cogsmith.cli import answer_files, folders, run_inputs
from cogsmith.cli.console import err, out
from cogsmith.cli.extras import with_extras
from cogsmith.cli.serving import served
from cogsmith.client.cog_server import Prediction
from cogsmith.errors import UserError


def command(
    name: Annotated[str, typer.Argument(help="A work directory: its name under work/, or its path.")],
    prompt: Annotated[str | None, typer.Option(help="Text to continue.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="A JSON file with the prediction's inputs; - reads stdin.")
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="An input, NAME=VALUE or NAME=@FILE; of a list, as often as it has items."),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to generate.", min=1)] = None,
    save: Annotated[Path | None, typer.Option(help="A folder for the files of an answer that has some.")] = None,
) -> None:
    """Start a work directory, run one prediction, print its output as it comes."""
    if prompt is not None and json_file is not None:
        raise typer.BadParameter("give --prompt TEXT or --json FILE, not both")
    if prompt is None and json_file is None and not words:
        raise typer.BadParameter("give --prompt TEXT, -i NAME=VALUE or --json FILE")
    folder = folders.find(name)
    inputs: dict[str, Any] = {} if json_file is None else _read_inputs(json_file)
    inputs |= run_inputs.from_words(folder, words or ())
    if prompt is not None:
        inputs["prompt"] = prompt
    if max_tokens is not None:
        inputs["max_tokens"] = max_tokens
    with_extras(lambda: _predict(folder, inputs, save))


def _read_inputs(path: Path) -> dict[str, Any]:
    try:
        text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text(encoding="utf-8")
        inputs = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as JSON: {error}", fix='write an object, such as {"prompt": "Hi"}'
        ) from error
    if not isinstance(inputs, dict):
        raise UserError(f"{path} holds a {type(inputs).__name__}", fix='write an object, such as {"prompt": "Hi"}')
    return inputs


def _predict(folder: Path, inputs: dict[str, Any], save: Path | None) -> None:
    with served(folder) as server:
        prediction = Prediction(server.url, inputs)
        chunks = prediction.chunks() if save is None else [_saved("".join(prediction.chunks()), save)]
        try:
            for chunk in chunks:
                typer.echo(chunk, nl=False)
            typer.echo()
        except BrokenPipeError:
            out.on_broken_pipe()
    err.print(_described(prediction.metrics), style="dim", markup=False)


def _saved(answer: str, folder: Path) -> str:
    try:
        return answer_files.save(answer, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}", fix="name another folder in --save") from error


def _described(metrics: Mapping[str, Any]) -> str:
    """Say what the server counted, for a person; a prediction of errors alone has no first token."""
    first = metrics.get("time_to_first_token")
    return (
        f"{metrics.get('input_token_count', 0)} tokens in, {metrics.get('output_token_count', 0)} out"
        + ("" if first is None else f", the first after {first:.2f} s")
        + f", {metrics['predict_time']:.2f} s in all"
    )
