"""`cogsmith export`: a model in other programs' formats."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cogsmith import config
from cogsmith.cli.console import ConsoleReporter, format_bytes, out
from cogsmith.cli.extras import with_extras
from cogsmith.cli.folders import model_folder, output_place
from cogsmith.config.model import OnnxSettings
from cogsmith.errors import ConfigError
from cogsmith.export.onnx import export_as

app = typer.Typer(help="A model in other programs' formats.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _formats() -> None:
    """Keep the format a word of its own, while there is only one."""


@app.command("onnx")
def onnx(
    name: Annotated[
        str,
        typer.Argument(
            help="A work directory, by name or path; a checkpoint folder; or a repository on the Hugging Face Hub."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "--output_folder",
            help="The folder to write, or an address in a store: s3://BUCKET/PATH. Left out, as export.onnx says.",
        ),
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            "--verify_export/--no-verify_export",
            help="Compare the file, run in onnxruntime, with the model. By default it is.",
        ),
    ] = None,
    dynamic: Annotated[
        bool | None, typer.Option("--dynamic/--fixed", help="Take any number of rows, and lengths up to N.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "--export_batch_size", help="Rows of the graph; 8.", min=1)
    ] = None,
    max_seq_len: Annotated[
        int | None,
        typer.Option(
            "--max-seq-len", "--max_seq_len", help="Tokens of a row; by default the longest text of its config.", min=1
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="The version of ONNX's operators, 18 to 23.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Write a model as ONNX: input_ids and attention_mask to logits, in float32, the weights in a file beside it.

    A graph that does not compute what the model does is an error, and nothing is written. What is left out is as
    export.onnx says in the model's section of config.toml, where there is one.
    """
    given: dict[str, Any] = {
        "batch_size": batch_size,
        "max_seq_len": max_seq_len,
        "dynamic": dynamic,
        "opset": opset,
        "verify": verify,
        "force": force or None,
    }
    said = replace(_said(name, output), **{key: value for key, value in given.items() if value is not None})
    reporter = ConsoleReporter()
    exported = with_extras(lambda: export_as(model_folder(name), said, reporter))
    if as_json:
        out.print_json(json.dumps(asdict(exported)))
        return
    for path, size in exported.files.items():
        out.print(f"{exported.place.rstrip('/')}/{path}  {format_bytes(size)}", markup=False)
    out.print(exported.summary(), markup=False)


def _said(name: str, output: str | None) -> OnnxSettings:
    """Return what config.toml says of the export, put at `output` where that is given. Raises typer's usage errors."""
    configured = _configured(name)
    if output is not None:
        # What may be replaced at one place says nothing of another.
        return replace(configured or OnnxSettings(""), output=output_place(output), force=False)
    if configured is None:
        raise typer.BadParameter(f"give --output DIR: config.toml says no export.onnx of {name!r}")
    return configured


def _configured(name: str) -> OnnxSettings | None:
    """Return what config.toml says of the export of the model called `name`; None where it does not, or is none."""
    try:
        models = config.load(Path("config.toml"), allow_placeholder=True).models
    except ConfigError:
        return None
    return models[name].onnx if name in models else None
