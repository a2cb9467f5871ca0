"""`cogsmith inspect`: what a model is made of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cogsmith import __version__, manifest
from cogsmith.cli import folders
from cogsmith.cli.console import out
from cogsmith.cli.extras import with_extras
from cogsmith.errors import MissingExtra, UserError
from cogsmith.manifest import Manifest


def command(
    name: Annotated[
        str, typer.Argument(help="A work directory: its name under work/, or its path; or a checkpoint folder.")
    ],
    tree: Annotated[bool, typer.Option("--tree", help="Print the tree of modules too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Report a model's parameters, memory footprint, layers and quantisation, without loading its weights.

    Of a model with code of its own, which is not run, what its weights and config.json say.
    """
    with_extras(lambda: _inspect(name, tree=tree, as_json=as_json))


def _inspect(name: str, *, tree: bool, as_json: bool) -> None:
    folder, settings = _opened(name)
    try:
        from cogsmith.engine.description import describe, describe_stored
    except ImportError:
        raise MissingExtra("engine", "Inspecting a model") from None
    checkpoint = folder / settings.checkpoint
    if settings.code is None:
        description = describe(checkpoint, settings.model_args, settings.quant, task=settings.task, in_other_types=True)
    elif tree:
        raise UserError(
            f"only {settings.code.model} knows its tree of modules, and inspecting runs no code of a model's own",
            fix="leave out --tree",
        )
    else:
        description = describe_stored(checkpoint, settings.model_args, settings.code, settings.quant)
    facts = asdict(description)
    module_tree, sizes = facts.pop("tree"), facts["footprints"]
    if as_json:
        facts |= {"tree": module_tree} if tree else {}
        out.print_json(json.dumps({"name": settings.name, "source": settings.source, **facts}))
        return
    out.print(f"{settings.name}  from {settings.source}", markup=False)
    for key, value in facts.items():
        if value is not sizes:
            out.print(f"  {key}={value}", markup=False)
    out.print(f"  Memory footprint: {_megabytes(description.memory_footprint)}", markup=False)
    if sizes:
        listed = ", ".join(f"{_megabytes(size)} in {title}" for title, size in sizes.items())
        out.print(f"  it would be {listed}", markup=False)
    if settings.code:
        out.print(f"  {settings.code.model} is the model's own code, which was not run", markup=False)
    if tree:
        out.print(module_tree, markup=False)


def _opened(name: str) -> tuple[Path, Manifest]:
    """Return a work directory with what it says, or a checkpoint folder as if it were one. Raises UserError."""
    try:
        folder = folders.find(name)
    except UserError:
        path = Path(name).expanduser()
        if not (path / "config.json").is_file():
            raise
        return path, Manifest(name=path.name, source=str(path), cogsmith=__version__, checkpoint=".")
    return folder, manifest.read(folder)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
