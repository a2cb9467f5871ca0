"""`cogsmith check`: is everything as it should be?"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from cogsmith import config
from cogsmith.cli import folders
from cogsmith.cli.console import ConsoleReporter, format_bytes, out
from cogsmith.cli.extras import with_extras
from cogsmith.config.model import WORK
from cogsmith.errors import Problem, ProblemsError, UserError
from cogsmith.sources.selection import CONFIG
from cogsmith.workdir import lint
from cogsmith.workdir.build import build
from cogsmith.workdir.check_weights import check_weights


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Work directories to check; all, if none is named.")] = None,
    config_file: Annotated[Path, typer.Option("--config", help="The config file.")] = Path("config.toml"),
    fix: Annotated[bool, typer.Option("--fix", help="Build work directories that have problems again.")] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Read all weights, and hold every tensor against the model.")
    ] = False,
) -> None:
    """Check the config, this machine and rendered work directories; name each problem and its remedy."""
    found = 0
    if not names:
        found += _report(str(config_file), _config_problems(config_file))
        _report_tools()
    root = config_file.parent
    for folder in [_find(name, root, weights) for name in names or folders.rendered(root)]:
        left = _check(folder, weights)
        if left and fix and folder.parent == root.absolute() / WORK:
            _build_again(config_file, folder)
            left = _check(folder, weights)
        found += left
    if found:
        raise typer.Exit(1)


def _find(name: str, root: Path, weights: bool) -> Path:
    """Return the work directory of that name or path; with `weights`, also a folder that is a checkpoint itself."""
    is_checkpoint = weights and (Path(name) / CONFIG).is_file() and not (Path(name) / "cog.yaml").is_file()
    return Path(name).absolute() if is_checkpoint else folders.find(name, root)


def _check(folder: Path, weights: bool) -> int:
    """Say what is wrong with the folder, or what was read; return how many problems there are."""
    problems = lint.check(folder) if (folder / "cog.yaml").is_file() else []
    if not weights:
        return _report(folders.shown(folder), problems)
    account = with_extras(lambda: check_weights(folder, ConsoleReporter()))
    problems += [problem for problem in account.problems if problem not in problems]
    read = f"ok: {account.files} files, {format_bytes(account.size)}, {account.tensors} tensors"
    return _report(folders.shown(folder), problems, read)


def _build_again(config_file: Path, folder: Path) -> None:
    """Render the folder from the config once more."""
    project = config.load(config_file)
    with_extras(lambda: build(project, [folder.name], reporter=ConsoleReporter()))


def _config_problems(path: Path) -> list[Problem]:
    try:
        config.load(path)
    except ProblemsError as error:
        return list(error.problems)
    except UserError as error:
        return [Problem(error.message, error.fix)]
    return []


def _report(subject: str, problems: list[Problem], good: str = "ok") -> int:
    out.print(f"{subject}:" if problems else f"{subject}: {good}", markup=False)
    for problem in problems:
        out.print(f"  {problem}", markup=False)
    return len(problems)


def _report_tools() -> None:
    """Tools that only pushing needs: said, not counted as a problem."""
    for tool, why in (("cog", "builds and pushes images"), ("docker", "is what cog builds with")):
        state = "found" if shutil.which(tool) else f"not on PATH; it {why}, and nothing else needs it"
        out.print(f"{tool}: {state}", markup=False)
