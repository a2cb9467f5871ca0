"""`cogsmith push`: checks, then the work directory's own `./push`."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from cogsmith.cli import folders
from cogsmith.cli.console import out
from cogsmith.errors import UserError, WorkdirError
from cogsmith.workdir import lint
from cogsmith.workdir.render import PLACEHOLDER_PREFIX


def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A work directory: its name under work/, or its path.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, push nothing.")] = False,
) -> None:
    """Check a work directory, then build and push its image with Cog. Further options go to `cog push`."""
    folder = folders.find(name)
    if problems := lint.check(folder):
        raise WorkdirError(folders.shown(folder), problems)
    if PLACEHOLDER_PREFIX in (folder / "push").read_text(encoding="utf-8"):
        raise UserError(
            f"{folders.shown(folder)} has no destination",
            fix='set dest_prefix in config.toml, such as "r8.im/acme/", and build again',
        )
    if dry_run:
        out.print(f"{folders.shown(folder)}: ok, would run ./push {' '.join(context.args)}".rstrip(), markup=False)
        return
    raise typer.Exit(subprocess.run([folder / "push", *context.args], cwd=folder, check=False).returncode)
