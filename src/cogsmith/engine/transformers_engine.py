"""The default engine: continuous batching over any transformers causal language model.

One thread does all torch work. Other threads hand it requests through an inbox; it answers through each request's
sink. Between steps it takes in what has come and drops what was cancelled, so a newcomer gets a free row after one
step at most, and a cancelled stream is gone within one. With nothing to do it sleeps.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import replace

from cogsmith.engine.admission import ENDING, admit, for_tokens
from cogsmith.engine.answer import Answer
from cogsmith.engine.base import Handle
from cogsmith.engine.constraint import start
from cogsmith.engine.engine_thread import EngineThread
from cogsmith.engine.grammars import Grammars
from cogsmith.engine.loader import LoadedModel
from cogsmith.engine.request import AnyRequest, FailedEvent, GenerateRequest, ScoreRequest, Sink
from cogsmith.engine.rows.choose import ALL, choose_rows
from cogsmith.engine.rows.given import admit_cache
from cogsmith.engine.rules import RuleBook
from cogsmith.engine.scheduler import Scheduler
from cogsmith.engine.sequence import Sequence
from cogsmith.engine.step import Stepper, scored_events
from cogsmith.manifest import Limits

_log = logging.getLogger("cogsmith.engine")

_FEW_PROMPT_TOKENS = 256
_PROMPT_TOKENS = {"cuda": 2048}
"""What a step takes of prompts, by device: as much as it computes in about the time of a step that only decodes."""


class TransformersEngine:
    """An `engine.base.Engine` over a loaded model. `close()` it when done.

    `max_prompt_tokens_per_step` bounds how many prompt tokens share a step with the decoding rows; `back_ends` names
    the row back-ends that may be tried.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        limits: Limits,
        *,
        max_prompt_tokens_per_step: int | None = None,
        back_ends: tuple[str, ...] = ALL,
    ) -> None:
        self._limits = limits
        rows = choose_rows(loaded, limits, allowed=back_ends)
        self._shapes = rows.shapes
        memory = rows.new_memory()
        info = loaded.info(runner=rows.name, max_context=rows.max_context)
        # Which attention serves the packed rows is worth knowing on a GPU, where there are three.
        kernel = {} if rows.kernel is None else {"kernel": rows.kernel}
        self.info = replace(info, details={**info.details, **kernel, "caches": rows.shapes is not None})
        most = max_prompt_tokens_per_step or _PROMPT_TOKENS.get(self.info.device.partition(":")[0], _FEW_PROMPT_TOKENS)
        scheduler = Scheduler(memory, limits.max_batch_size, most)
        self._stepper = Stepper(scheduler, rows.new_runner, self.info)
        self._rules = RuleBook(self.info)
        self._grammars = Grammars(loaded.tokenizer, self.info)
        self._thread = EngineThread[Sequence](self._loop, limits, self._num_taken)
        self._thread.start()

    def submit(self, request: AnyRequest, sink: Sink, *, client: Hashable = None) -> Handle:
        """Queue a request. Raises RequestError at once for one that can never run, or when the queue is full."""
        request = for_tokens(request)
        admit(request, self.info, self._limits)
        admit_cache(request, self._shapes)
        if isinstance(request, GenerateRequest):
            sequence = Sequence.of(request, sink, self._rules.of(request))
            sequence.constraint = start(request, self._grammars, self.info)
        else:
            sequence = Sequence.of(request, sink)
        sequence.client = client
        self._thread.put(sequence)
        return sequence

    def healthy(self) -> bool:
        """Whether the engine's thread lives."""
        return self._thread.healthy()

    def close(self) -> None:
        """End all streams and the engine's thread."""
        self._thread.close()
        self._grammars.close()

    def _num_taken(self) -> int:
        # In the order opposite to a sequence's way, so that none is counted twice while the engine's thread moves it.
        return len(self._stepper.scheduler.running) + len(self._stepper.scheduler.waiting)

    def _loop(self) -> None:
        while self._take_in():
            self._step()
        self._end_all()

    def _take_in(self) -> bool:
        """Move the inbox to the scheduler, sleeping while there is nothing to do; False when closing."""
        scheduler = self._stepper.scheduler
        for sequence in self._thread.take(idle=scheduler.idle):
            if not (_answers_without_model(sequence) or self._stepper.begin(sequence)):
                scheduler.add(sequence)
        return not self._thread.closing

    def _step(self) -> None:
        try:
            for sequence in self._stepper.scheduler.cancelled():
                self._stepper.drop(sequence)
            if not self._stepper.scheduler.idle:
                self._stepper.step()
        except Exception as error:
            # Whatever went wrong, rows may be half-written: end these streams and keep serving the next ones.
            _log.exception("a step failed")
            self._stepper.fail_all(f"the engine failed: {type(error).__name__}: {error}")

    def _end_all(self) -> None:
        self._stepper.fail_all(ENDING)
        for sequence in (*self._stepper.scheduler.waiting, *self._thread.take(idle=False)):
            sequence.emit(FailedEvent(ENDING))


def _answers_without_model(sequence: Sequence) -> bool:
    """Give the first token of an empty prompt its score, and return whether that was all."""
    request = sequence.request
    if not isinstance(request, ScoreRequest) or request.prompt:
        return False
    return sequence.emit(*scored_events(request, [Answer.of_first(request)], ends=len(request.scored) == 1))
