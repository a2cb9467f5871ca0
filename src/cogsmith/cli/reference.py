"""The page docs/5-commands.md, from the commands' own help. `python -m cogsmith.cli.reference` prints it.

A test keeps the page in step.
"""

from __future__ import annotations

import sys

from typer import Typer
from typer.testing import CliRunner

from cogsmith.cli.main import app

_INTRODUCTION = """\
# Commands

Results go to stdout; progress, notes and errors to stderr. With `--json`, `build`, `import`, `inspect`, `generate` and
`score` make stdout one JSON text. `NO_COLOR` is honoured. Exit codes: 0 ok, 1 something the user can mend (the message
says how), 2 wrong usage, 3 a fault of ours.

`./build` is `cogsmith build` in the project's own environment, made on first use.
"""


def reference() -> str:
    """Return the page: every command's help text, at a fixed width."""
    names = _names(app)
    return "\n".join([_INTRODUCTION, *(f"## cogsmith {name}\n\n```\n{_help(name)}\n```\n" for name in names)])


def _names(commands: Typer, before: str = "") -> list[str]:
    """Return every command as it is typed, those of a group after its name."""
    names = [f"{before}{command.name}" for command in commands.registered_commands if command.name]
    groups = [(group.name, group.typer_instance) for group in commands.registered_groups]
    return names + [name for group, inner in groups if group and inner for name in _names(inner, f"{before}{group} ")]


def _help(name: str) -> str:
    terminal = {"COLUMNS": "100", "TERM": "dumb"}
    result = CliRunner().invoke(app, [*name.split(), "--help"], prog_name="cogsmith", env=terminal)
    return result.output.strip()


if __name__ == "__main__":
    sys.stdout.write(reference())
