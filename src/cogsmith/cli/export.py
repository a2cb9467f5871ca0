"""`cogsmith export`: a model in other programs' formats."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from cogsmith.cli.console import ConsoleReporter, format_bytes, out
from cogsmith.cli.extras import with_extras
from cogsmith.cli.folders import model_folder, output_place
from cogsmith.export.onnx import Exported, Shape, export

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
        str,
        typer.Option(
            "--output", "--output_folder", help="The folder to write, or an address in a store: s3://BUCKET/PATH."
        ),
    ],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            "--verify_export/--no-verify_export",
            help="Compare the file, run in onnxruntime, with the model.",
        ),
    ] = True,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Take any number of rows, and lengths up to N.")] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--export_batch_size", help="Rows of the graph.", min=1)
    ] = 8,
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

    A graph that does not compute what the model does is an error, and nothing is written.
    """
    place = output_place(output)
    shape = Shape(batch=batch_size, length=max_seq_len, dynamic=dynamic)
    reporter = ConsoleReporter()
    exported = with_extras(
        lambda: export(model_folder(name), place, shape, opset=opset, verify=verify, force=force, reporter=reporter)
    )
    if as_json:
        out.print_json(json.dumps(asdict(exported)))
        return
    for path, size in exported.files.items():
        out.print(f"{exported.place.rstrip('/')}/{path}  {format_bytes(size)}", markup=False)
    out.print(_summary(exported), markup=False)


def _summary(exported: Exported) -> str:
    rows, tokens = str(exported.batch), str(exported.length)
    taken = f"any rows x up to {tokens} tokens" if exported.dynamic else f"{rows} rows x {tokens} tokens"
    difference = exported.largest_difference
    compared = "not compared" if difference is None else f"largest difference from the model {difference:.3g}"
    return f"n_params={exported.n_params}, {taken}, opset {exported.opset}, {compared}"
