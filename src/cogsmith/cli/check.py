"""`cogsmith check`: is everything as it should be?"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from cogsmith import config
from cogsmith.cli import folders
from cogsmith.cli.console import ConsoleReporter, out
from cogsmith.cli.extras import with_extras
from cogsmith.config.model import WORK
from cogsmith.errors import Problem, ProblemsError, UserError
from cogsmith.workdir import lint
from cogsmith.workdir.build import build


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Work directories to check; all, if none is named.")] = None,
    config_file: Annotated[Path, typer.Option("--config", help="The config file.")] = Path("config.toml"),
    fix: Annotated[bool, typer.Option("--fix", help="Build work directories that have problems again.")] = False,
) -> None:
    """Check the config, this machine and rendered work directories; name each problem and its remedy."""
    found = 0
    if not names:
        found += _report(str(config_file), _config_problems(config_file))
        _report_tools()
    root = config_file.parent
    for folder in [folders.find(name, root) for name in names or folders.rendered(root)]:
        left = _report(folders.shown(folder), lint.check(folder))
        if left and fix and folder.parent == root.absolute() / WORK:
            left = _report(folders.shown(folder), _build_again(config_file, folder))
        found += left
    if found:
        raise typer.Exit(1)


def _build_again(config_file: Path, folder: Path) -> list[Problem]:
    """Render the folder from the config once more; return what is wrong with it then."""
    project = config.load(config_file)
    with_extras(lambda: build(project, [folder.name], reporter=ConsoleReporter()))
    return lint.check(folder)


def _config_problems(path: Path) -> list[Problem]:
    try:
        config.load(path)
    except ProblemsError as error:
        return list(error.problems)
    except UserError as error:
        return [Problem(error.message, error.fix)]
    return []


def _report(subject: str, problems: list[Problem]) -> int:
    out.print(f"{subject}:" if problems else f"{subject}: ok", markup=False)
    for problem in problems:
        out.print(f"  {problem}", markup=False)
    return len(problems)


def _report_tools() -> None:
    """Tools that only pushing needs: said, not counted as a problem."""
    for tool, why in (("cog", "builds and pushes images"), ("docker", "is what cog builds with")):
        state = "found" if shutil.which(tool) else f"not on PATH; it {why}, and nothing else needs it"
        out.print(f"{tool}: {state}", markup=False)
