"""`cogsmith serve`: a work directory under the real Cog runtime on this machine."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from cogsmith.cli import folders
from cogsmith.cli.console import err
from cogsmith.cli.extras import with_extras
from cogsmith.gateway import cog_process


def command(
    name: Annotated[str, typer.Argument(help="A work directory: its name under work/, or its path.")],
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="The IPv4 address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve a work directory with Cog's own HTTP server, without Docker, until interrupted."""
    folder = folders.find(name)
    server = with_extras(lambda: cog_process.start(folder, host=host, port=port, show_log=True))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        server.wait_until_ready()
        err.print(f"{folder.name} is ready on {server.url}; Ctrl-C ends it.", markup=False)
        raise typer.Exit(server.wait())
    except KeyboardInterrupt:
        err.print("stopping; running predictions may finish")
    finally:
        server.stop()


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
