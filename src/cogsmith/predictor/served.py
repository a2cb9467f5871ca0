"""What the predictors of all tasks have in common: a model is loaded, predictions come and may be cancelled."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cog

from cogsmith import manifest
from cogsmith.engine.open import open_engine
from cogsmith.predictor import cancel
from cogsmith.predictor.mailbox import Cancelled, Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.session import Session

if TYPE_CHECKING:
    from cogsmith.engine.images import Pictures

_log = logging.getLogger("cogsmith.predictor")

cancel.install()


class ServedModel(cog.BaseRunner):  # type: ignore[misc]
    """Serves the model of the work directory that is the current folder: Cog starts everything there."""

    def setup(self) -> None:
        """Load the checkpoint and start the engine. Runs once, before the first prediction."""
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
        started = time.monotonic()
        folder = Path.cwd()
        self._manifest = manifest.read(folder)
        model_args = manifest.model_args(self._manifest)
        self._engine, self._tokenizer, self._images = open_engine(self._manifest, folder, model_args)
        info = self._engine.info
        _log.info(
            "%s is ready after %.1f s: %.1f M parameters, %s on %s, %s rows",
            *(info.model, time.monotonic() - started, info.parameters / 1e6),
            *(info.dtype, info.device, info.details["runner"]),
        )

    def healthcheck(self) -> bool:
        """Whether predictions can be served."""
        return self._engine.healthy()

    def _begin(self) -> tuple[Mailbox, Meter]:
        """Return what a prediction that begins now hears its events by, and what counts them."""
        mailbox = Mailbox(self._manifest.limits.timeout_seconds)
        # Cog finds the prediction by the calling thread, and the generator runs on another.
        meter = Meter(self.scope.record_metric)
        hook = cancel.current_hook()
        if hook is not None:
            hook.on_cancel(mailbox.cancel)
        return mailbox, meter

    def _lmtp(
        self, ops_batch_json: str, mailbox: Mailbox, meter: Meter, pictures: Pictures | None = None
    ) -> Iterator[str]:
        """Answer a batch of LMTP operations. `pictures` are those that the prediction brought."""
        limits, tokenizer = self._manifest.limits, self._tokenizer
        session = Session(self._engine, limits, mailbox, meter, tokenizer=tokenizer, pictures=pictures)
        return session.run(ops_batch_json)


def until_cancelled(chunks: Iterator[str]) -> Iterator[str]:
    """Say "cancelled" in Cog's own way, so that the prediction's status becomes that."""
    try:
        yield from chunks
    except Cancelled:
        raise cog.CancellationException from None
