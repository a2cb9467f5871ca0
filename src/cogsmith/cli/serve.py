"""`cogsmith serve`: models on this machine, behind Replicate's API and an LMTP WebSocket."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from cogsmith.cli import model_args
from cogsmith.cli.console import ConsoleReporter, err
from cogsmith.cli.extras import with_extras
from cogsmith.gateway import access_log, chaos
from cogsmith.gateway.assembly import Settings
from cogsmith.gateway.limits import RateLimits
from cogsmith.gateway.open_model import open_models
from cogsmith.gateway.server import Gateway

_NAMES = "Work directories by name or path, checkpoint folders, repositories on the Hugging Face Hub; all, if none."


def command(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help=_NAMES)] = None,
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    cuda: Annotated[bool, typer.Option("--cuda", help="Let models use the GPUs, spread over all of them.")] = False,
    token: Annotated[
        str | None,
        typer.Option(envvar="COGSMITH_TOKEN", help="Demand this token; needed with any --host but loopback."),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Serve a page, at /demo/, that shows tokens.")] = False,
    lazy: Annotated[bool, typer.Option("--lazy", help="Start each model when it is first asked for.")] = False,
    max_queue: Annotated[int, typer.Option(help="Most predictions that may wait.", min=1)] = 2000,
    max_body: Annotated[int, typer.Option(help="Largest body of a request, in MiB.", min=1)] = 64,
    keep: Annotated[float, typer.Option(help="Minutes for which finished predictions are kept.", min=0)] = 60.0,
    rate_limit: Annotated[
        int | None,
        typer.Option(help="Most predictions created in a minute; else limits are shown, not enforced.", min=1),
    ] = None,
    chaos_spec: Annotated[
        str | None,
        typer.Option("--chaos", help='Faults to make, such as "429=0.2,500=0.1,cut=0.1,slow=5,aborted=0.1".'),
    ] = None,
) -> None:
    """Serve models under the real Cog runtime, without Docker: Replicate's API, and LMTP at ws://HOST:PORT.

    Any further --KEY VALUE goes to from_pretrained, over the model's own config.
    """
    known = [option.lstrip("-") for parameter in context.command.params for option in parameter.opts]
    chosen, arguments, problems = model_args.split(names or [], known)
    if problems:
        raise typer.BadParameter("\n  ".join(problems))
    settings = Settings(
        host=host,
        port=port,
        cuda=cuda,
        token=token,
        lazy=lazy,
        max_queue=max_queue,
        max_body=max_body * 2**20,
        keep=keep * 60,
        rate_limits=RateLimits() if rate_limit is None else RateLimits(creations=rate_limit, enforced=True),
        chaos=None if chaos_spec is None else chaos.parse(chaos_spec),
        model_args=arguments,
        demo=demo,
    )
    run(lambda: open_models(chosen, root=Path(), reporter=ConsoleReporter()), settings)


def run(find: Callable[[], Sequence[Path]], settings: Settings) -> None:
    """Serve the work directories that `find` finds, or builds, until the gateway's end."""
    _log_to_stderr()
    with_extras(lambda: Gateway(find(), settings, _say)).run()


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal has been closed
        err.print(text, markup=False)


def _log_to_stderr() -> None:
    """Show the requests, and what goes wrong inside."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger(access_log.LOGGER).setLevel(logging.INFO)
