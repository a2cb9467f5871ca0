"""The engine of models that give vectors: texts of any requests that are of about one length share a forward pass.

One thread does all torch work; others hand it requests through an inbox, and get each request's answer, all of it at
once, through its sink. Clients take turns, so that one with thousands of texts holds no other's first one up. With
nothing to do the thread sleeps.

A text's vectors do not depend on what it is run with: padding stands on its right and is masked, and a model that is
found not to bear that gets texts of equal length only.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Hashable, Iterable, Sequence

from cogsmith.engine.admission import ENDING
from cogsmith.engine.base import Handle
from cogsmith.engine.encoder_model import EncoderModel
from cogsmith.engine.encoding import Encoding, Text, answers
from cogsmith.engine.engine_thread import EngineThread
from cogsmith.engine.fair_queue import FairQueue
from cogsmith.engine.length_batches import next_batch
from cogsmith.engine.request import AnyRequest, EmbedRequest, FailedEvent, Sink
from cogsmith.engine.vector_admission import admit
from cogsmith.errors import RequestError
from cogsmith.manifest import Limits

_log = logging.getLogger("cogsmith.engine")

_FEW_TOKENS = 4096
_TOKENS = {"cuda": 65536}
"""What a forward pass takes, padding included, by device."""

_LOOKED_AT = 2048
"""How many of the texts that wait are looked through for such of one length."""


class EncoderEngine:
    """An `engine.base.Engine` over a loaded encoder, or a decoder without its head. `close()` it when done.

    `max_tokens_per_batch` bounds what one forward pass takes, padding included; one text may be longer.
    """

    def __init__(self, loaded: EncoderModel, limits: Limits, *, max_tokens_per_batch: int | None = None) -> None:
        self._model = loaded
        self._limits = limits
        self.info = loaded.info(limits.max_context)
        device = self.info.device.partition(":")[0]
        self._max_tokens = max_tokens_per_batch or _TOKENS.get(device, _FEW_TOKENS)
        self._running: set[Encoding] = set()
        self._waiting = FairQueue[Text]()
        self._thread = EngineThread[Encoding](self._loop, limits, lambda: len(self._running))
        self._thread.start()

    def submit(self, request: AnyRequest, sink: Sink, *, client: Hashable = None) -> Handle:
        """Queue a request. Raises RequestError at once for one that can never run, or when the queue is full."""
        if not isinstance(request, EmbedRequest):
            raise RequestError(
                f"this model gives vectors (task {self.info.task}), and continues or scores no text",
                fix="send EMBED, or serve a model that continues text",
            )
        asked = admit(request, self.info, self._model.padding_id)
        encoding = Encoding(asked, sink, client)
        self._thread.put(encoding)
        return encoding

    def healthy(self) -> bool:
        """Whether the engine's thread lives."""
        return self._thread.healthy()

    def close(self) -> None:
        """End all requests and the engine's thread."""
        self._thread.close()

    def _loop(self) -> None:
        while self._take_in():
            self._step()
        for encoding in (*self._running, *self._thread.take(idle=False)):
            encoding.emit(FailedEvent(ENDING))

    def _take_in(self) -> bool:
        """Take in what has come, sleeping while there is nothing to do; False when closing."""
        for encoding in self._thread.take(idle=not self._waiting, note=self._running.update):
            for text in encoding.texts:
                self._waiting.append(text)
        return not self._thread.closing

    def _step(self) -> None:
        """Schedule, run, answer."""
        for encoding in [encoding for encoding in self._running if encoding.cancelled]:
            self._drop(encoding)
        texts = self._schedule()
        if not texts:
            return
        try:
            answers(self._model, texts)
        except Exception as error:
            _log.exception("a batch failed")
            self._fail((text.encoding for text in texts), f"the engine failed: {type(error).__name__}: {error}")
        for encoding in dict.fromkeys(text.encoding for text in texts):
            if encoding.finish():
                self._running.discard(encoding)

    def _schedule(self) -> Sequence[Text]:
        """Take the texts of the next batch out of the queue."""
        seen = list(itertools.islice(self._waiting, _LOOKED_AT))
        if not seen:
            return []
        places = next_batch(
            [len(text.ids) for text in seen],
            max_rows=self._limits.max_batch_size,
            max_tokens=self._max_tokens,
            equal=not self._model.bears_padding,
        )
        texts = [seen[place] for place in places]
        for text in texts:
            self._waiting.remove(text)
        return texts

    def _fail(self, encodings: Iterable[Encoding], reason: str) -> None:
        for encoding in dict.fromkeys(encodings):
            encoding.emit(FailedEvent(reason))
            self._drop(encoding)

    def _drop(self, encoding: Encoding) -> None:
        """Forget a request with all of its texts that still wait."""
        self._running.discard(encoding)
        for text in [text for text in self._waiting if text.encoding is encoding]:
            self._waiting.remove(text)
