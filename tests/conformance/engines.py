"""The engines under the predictor, in this process: no server, no socket."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .server import ANSWER_SECONDS, Server

ROWS = ("packed", "padded", "solo", "recompute")
"""The row back-ends of the default engine."""


def names() -> tuple[str, ...]:
    """What can be run here."""
    return (*ROWS, "vllm") if importlib.util.find_spec("vllm") else ROWS


class InProcess(Server):
    """An engine, reached as one of Cog's predictions reaches it."""

    def __init__(self, engine: Any, tokenizer: Any) -> None:
        self._engine = engine
        self._tokenizer = tokenizer

    def lines(self, batch: str) -> Iterator[str]:
        from cogsmith.manifest import Limits
        from cogsmith.predictor.mailbox import Mailbox
        from cogsmith.predictor.meter import Meter
        from cogsmith.predictor.session import Session

        meter = Meter(lambda name, value: None)
        session = Session(self._engine, Limits(), Mailbox(ANSWER_SECONDS), meter, tokenizer=self._tokenizer)
        with contextlib.closing(session.run(batch)) as chunks:
            for chunk in chunks:
                assert chunk.endswith("\n")
                yield from chunk.splitlines()


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[Server]:
    """An engine over the checkpoint in `folder`, in float32."""
    engine, tokenizer = _vllm(folder) if name == "vllm" else _transformers(name, folder)
    try:
        yield InProcess(engine, tokenizer)
    finally:
        engine.close()


def _transformers(rows: str, folder: Path) -> tuple[Any, Any]:
    """The default engine with the row back-end called `rows`; the one that it chooses for "chosen"."""
    from cogsmith.engine.loader import load
    from cogsmith.engine.transformers_engine import TransformersEngine
    from cogsmith.manifest import Limits

    loaded = load(folder, {"dtype": "float32"}, name=rows)
    if rows == "chosen":
        return TransformersEngine(loaded, Limits()), loaded.tokenizer
    engine = TransformersEngine(loaded, Limits(), back_ends=(rows,))
    assert engine.info.details["runner"] == rows
    return engine, loaded.tokenizer


def _vllm(folder: Path) -> tuple[Any, Any]:
    from cogsmith.engine.vllm.open import open_vllm
    from cogsmith.manifest import Limits

    return open_vllm(folder, {"dtype": "float32"}, {}, Limits(), name="vllm")
