"""The page docs/5-commands.md, from the commands' own help. `python -m cogsmith.cli.reference` prints it.

A test keeps the page in step.
"""

from __future__ import annotations

import sys

from typer.testing import CliRunner

from cogsmith.cli.main import app

_INTRODUCTION = """\
# Commands

Results go to stdout; progress, notes and errors to stderr. With `--json`, `build`, `inspect`, `generate` and `score`
make stdout one JSON text. `NO_COLOR` is honoured. Exit codes: 0 ok, 1 something the user can mend (the message says
how), 2 wrong usage, 3 a fault of ours.

`./build` is `cogsmith build` in the project's own environment, made on first use.
"""


def reference() -> str:
    """Return the page: every command's help text, at a fixed width."""
    names = [command.name for command in app.registered_commands if command.name]
    return "\n".join([_INTRODUCTION, *(f"## cogsmith {name}\n\n```\n{_help(name)}\n```\n" for name in names)])


def _help(name: str) -> str:
    result = CliRunner().invoke(app, [name, "--help"], prog_name="cogsmith", env={"COLUMNS": "100", "TERM": "dumb"})
    return result.output.strip()


if __name__ == "__main__":
    sys.stdout.write(reference())
