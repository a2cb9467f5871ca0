"""The class that a work directory's `predict.py` derives its predictor from.

`run` itself is written out there, because Cog reads its signature without importing anything.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cog

from cogsmith import manifest
from cogsmith.engine.open import open_engine
from cogsmith.errors import RequestError
from cogsmith.predictor import cancel
from cogsmith.predictor.inputs import from_run
from cogsmith.predictor.mailbox import Cancelled, Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.session import Session
from cogsmith.predictor.text import stream_text

_log = logging.getLogger("cogsmith.predictor")

cancel.install()


class LanguageModel(cog.BaseRunner):  # type: ignore[misc]
    """Serves the model of the work directory that is the current folder: Cog starts everything there."""

    def setup(self) -> None:
        """Load the checkpoint and start the engine. Runs once, before the first prediction."""
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
        started = time.monotonic()
        folder = Path.cwd()
        self._manifest = manifest.read(folder)
        model_args = manifest.model_args(self._manifest)
        self._engine, self._tokenizer = open_engine(self._manifest, folder, model_args)
        info = self._engine.info
        _log.info(
            "%s is ready after %.1f s: %.1f M parameters, %s on %s, %s rows",
            *(info.model, time.monotonic() - started, info.parameters / 1e6),
            *(info.dtype, info.device, info.details["runner"]),
        )

    def healthcheck(self) -> bool:
        """Whether predictions can be served."""
        return self._engine.healthy()

    def stream(
        self,
        *,
        ops_batch_json: str = "",
        **inputs: Any,
    ) -> Iterator[str]:
        """Answer one prediction: LMTP lines for `ops_batch_json`, else plain text by `inputs.from_run`.

        Returns a generator at once, which Cog then reads on a thread of its own. Raises RequestError where inputs
        contradict each other; faults of an LMTP operation come in-band.
        """
        asked = from_run(**inputs)
        if ops_batch_json and asked.is_given:
            raise RequestError("ops_batch_json is given together with a prompt or messages", fix="send one of them")
        mailbox = Mailbox(self._manifest.limits.timeout_seconds)
        # Cog finds the prediction by the calling thread, and the generator runs on another.
        meter = Meter(self.scope.record_metric)
        hook = cancel.current_hook()
        if hook is not None:
            hook.on_cancel(mailbox.cancel)
        if ops_batch_json:
            limits, tokenizer = self._manifest.limits, self._tokenizer
            chunks = Session(self._engine, limits, mailbox, meter, tokenizer=tokenizer).run(ops_batch_json)
        else:
            chunks = stream_text(asked, self._engine, self._tokenizer, mailbox, meter, self._manifest.prompt)
        return _until_cancelled(chunks)


def _until_cancelled(chunks: Iterator[str]) -> Iterator[str]:
    """Say "cancelled" in Cog's own way, so that the prediction's status becomes that."""
    try:
        yield from chunks
    except Cancelled:
        raise cog.CancelationException from None
