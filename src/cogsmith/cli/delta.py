"""`cogsmith delta`: differences between two LLaMA2-Accessory or Meta checkpoints, applied and extracted."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cogsmith.cli.console import ConsoleReporter, out
from cogsmith.cli.extras import with_extras
from cogsmith.errors import MissingExtra, UserError
from cogsmith.sources.accessory import delta as operation
from cogsmith.workdir import output

app = typer.Typer(
    help="Differences between LLaMA2-Accessory or Meta checkpoints.", no_args_is_help=True, rich_markup_mode=None
)

Base = Annotated[Path, typer.Option("--base", help="The weights that were trained from: whole ones.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write.")]
DType = Annotated[operation.DType, typer.Option("--dtype", help="The type of the numbers that are written.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is in the folder.")]


@app.command("apply")
def apply(
    base: Base,
    delta: Annotated[Path, typer.Option("--delta", help="The folder with consolidated.*.model-diff.pth.")],
    out_folder: Out,
    to: Annotated[operation.Form, typer.Option("--to", help="The format to write.")] = "accessory",
    dtype: DType = "float16",
    force: Force = False,
) -> None:
    """Add a delta to the weights that it belongs to. Shards need not be equal in number."""

    def write(folder: Path) -> None:
        operation.apply(base, delta, folder, reporter=ConsoleReporter(), to=to, dtype=dtype)

    _write([base, delta], out_folder, write, force=force)
    out.print(f"{out_folder}: {base} with {delta} applied", markup=False)


@app.command("extract")
def extract(
    base: Base,
    tuned: Annotated[Path, typer.Option("--tuned", help="The weights after training: whole ones.")],
    out_folder: Out,
    dtype: DType = "float16",
    force: Force = False,
) -> None:
    """Write what tuned weights have over their base, in LLaMA2-Accessory's format."""

    def write(folder: Path) -> None:
        operation.extract(base, tuned, folder, reporter=ConsoleReporter(), dtype=dtype)

    _write([base, tuned], out_folder, write, force=force)
    out.print(f"{out_folder}: what {tuned} has over {base}", markup=False)


def _write(inputs: list[Path], target: Path, write: Callable[[Path], None], *, force: bool) -> None:
    """Let `write` fill a folder that takes the place of `target` when it is whole."""
    _check_apart(target, inputs)

    def work() -> None:
        if not all(importlib.util.find_spec(package) for package in ("torch", "transformers", "sentencepiece")):
            raise MissingExtra("engine,import", "Working with deltas")
        with output.writing(target, force=force) as folder:
            write(folder)

    with_extras(work)


def _check_apart(target: Path, inputs: list[Path]) -> None:
    """Refuse to write over what is read, which --force would delete."""
    place = target.resolve()
    for path in inputs:
        if place == path.resolve() or place in path.resolve().parents:
            raise UserError(f"--out {target} would replace {path}", fix="name another folder")
