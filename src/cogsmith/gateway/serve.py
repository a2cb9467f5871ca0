"""Serving from Python: `cogsmith.serve("gpt2-medium")`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cogsmith.gateway.assembly import Settings
from cogsmith.gateway.open_model import open_models
from cogsmith.gateway.server import Gateway
from cogsmith.sources.silent import Silent


def serve(
    *names: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    cuda: bool = False,
    token: str | None = None,
    demo: bool = False,
    on_start: Callable[[Gateway], None] | None = None,
    **model_args: Any,
) -> None:
    """Serve models until the program is interrupted, as `cogsmith serve` does; also on a thread of its own.

    A name is a work directory's, a folder's or a repository's on the Hugging Face Hub; without any, all of `work/` are
    served. With `demo` there is a page at /demo/. `model_args` go to `from_pretrained`; JSON must be able to hold them.
    `on_start` is called with the gateway once it has its port, before anything is served: its `url` says where, its
    `stop()` ends this call, from any thread. Raises UserError.
    """
    folders = open_models(names, root=Path(), reporter=Silent())
    settings = Settings(host=host, port=port, cuda=cuda, token=token, demo=demo, model_args=model_args)
    gateway = Gateway(folders, settings, _report)
    if on_start is not None:
        on_start(gateway)
    gateway.run()


def _report(text: str) -> None:
    sys.stderr.write(f"{text}\n")
