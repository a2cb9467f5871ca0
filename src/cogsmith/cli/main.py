"""`cogsmith`: the commands put together, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from cogsmith import __version__
from cogsmith.cli import (
    build,
    check,
    delta,
    embed,
    export,
    generate,
    import_,
    inspect,
    page,
    predict,
    push,
    score,
    serve,
)
from cogsmith.cli.console import err
from cogsmith.cli.many_values import ManyValuesCommand
from cogsmith.errors import CogsmithError, InternalError, UserError

app = typer.Typer(
    help="Open language models in Cog containers, held by their tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_UNKNOWN_TOO = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("build")(build.command)
app.command("check")(check.command)
app.command("serve", context_settings={"ignore_unknown_options": True})(serve.command)
app.command("demo", cls=ManyValuesCommand)(page.command)
app.command("predict")(predict.command)
app.command("generate", cls=ManyValuesCommand, context_settings=_UNKNOWN_TOO)(generate.command)
app.command("score", cls=ManyValuesCommand)(score.command)
app.command("embed", cls=ManyValuesCommand)(embed.command)
app.command("import")(import_.command)
app.command("inspect")(inspect.command)
app.command("push", context_settings=_UNKNOWN_TOO)(push.command)
app.add_typer(delta.app, name="delta")
app.add_typer(export.app, name="export")


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 1 the user's problem, 2 usage, 3 ours."""
    try:
        app()
    except CogsmithError as error:
        err.print(f"error: {error}", style="red", markup=False)
        sys.exit(error.exit_code)
    except OSError as error:
        err.print(
            f"error: {_described(error)}\n  fix: check the disk and the permissions there", style="red", markup=False
        )
        sys.exit(UserError.exit_code)
    except Exception:
        traceback.print_exc()
        err.print("error: this is a fault of Cogsmith; please report it with the lines above", style="red")
        sys.exit(InternalError.exit_code)


def _described(error: OSError) -> str:
    """Say what the system refused, and for which file."""
    place = error.filename2 or error.filename
    reason = error.strerror or str(error)
    return f"{os.fsdecode(place)}: {reason}" if isinstance(place, str | bytes | os.PathLike) else reason


if __name__ == "__main__":
    main()
