"""One engine step: schedule, run, postprocess. Knows no threads and no clients' transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from cogsmith.engine.answer import Answer
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import Event, FailedEvent, ScoreRequest, TokenEvent
from cogsmith.engine.runner import RowChunk, Runner
from cogsmith.engine.sampler import sample, score
from cogsmith.engine.scheduler import Chunk, Scheduler
from cogsmith.engine.sequence import Sequence as TokenSequence

_NOT_FINITE = FailedEvent("the model gave infinite or undefined numbers here; its dtype may be too narrow for it")


class Stepper:
    """Advances all sequences of a scheduler on one runner."""

    def __init__(self, scheduler: Scheduler, new_runner: Callable[[], Runner], info: EngineInfo) -> None:
        self.scheduler = scheduler
        self._new_runner = new_runner
        self._runner = new_runner()
        self._info = info

    @torch.inference_mode()
    def step(self) -> None:
        """Advance every running sequence: each that decodes by a token, the others along their prompt."""
        chunks = self.scheduler.schedule()
        logits = self._run(chunks)
        self._postprocess(chunks, logits)

    def drop(self, sequence: TokenSequence) -> None:
        """End a sequence: forget it and free its row."""
        self.scheduler.remove(sequence)
        if sequence.row is not None:
            self._runner.close_row(sequence.row)
            sequence.row = None

    def fail_all(self, message: str) -> None:
        """End every running sequence with `message`, after a step that could not be completed.

        Caches may be half-written then, so the runner goes with them.
        """
        failed, self.scheduler.running = self.scheduler.running, []
        self._runner = self._new_runner()
        for sequence in failed:
            sequence.emit(FailedEvent(message))

    def _run(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        for chunk in chunks:
            if chunk.sequence.row is None:
                chunk.sequence.row = self._runner.open_row()
        return self._runner.forward([_row_chunk(chunk) for chunk in chunks])

    def _postprocess(self, chunks: Sequence[Chunk], logits: torch.Tensor) -> None:
        parts = torch.split(logits, [chunk.num_wanted for chunk in chunks])
        sampled: list[tuple[TokenSequence, torch.Tensor]] = []
        for chunk, part in zip(chunks, parts, strict=True):
            request = chunk.sequence.request
            if isinstance(request, ScoreRequest):
                self._score(chunk, request, part)
            elif len(part):
                sampled.append((chunk.sequence, part))
        for chunk in chunks:
            chunk.sequence.num_computed += chunk.num_tokens
        if sampled:
            self._sample([sequence for sequence, _ in sampled], torch.cat([part for _, part in sampled]))

    def _sample(self, sequences: Sequence[TokenSequence], logits: torch.Tensor) -> None:
        answers = sample(logits, sequences, self._info.vocab_size)
        for sequence, answer in zip(sequences, answers, strict=True):
            if not answer.is_finite:
                self._emit(sequence, _NOT_FINITE)
                continue
            sequence.append(answer.token)
            reason = sequence.finish_reason(answer.token, self._info.eos_ids, self._info.max_context)
            event = TokenEvent(answer.token, answer.logprob, answer.top_logprobs, reason, answer.logprobs)
            self._emit(sequence, event)

    def _score(self, chunk: Chunk, request: ScoreRequest, logits: torch.Tensor) -> None:
        sequence = chunk.sequence
        end = chunk.positions.stop
        targets = sequence.tokens[end - chunk.num_wanted + 1 : end + 1]
        if targets:
            answers = score(logits, targets, request, self._info.vocab_size)
            ends = end > sequence.last_position
            is_finite = all(answer.is_finite for answer in answers)
            self._emit(sequence, *(scored_events(request, answers, ends=ends) if is_finite else [_NOT_FINITE]))

    def _emit(self, sequence: TokenSequence, *events: Event) -> None:
        if sequence.emit(*events):
            self.drop(sequence)


def scored_events(request: ScoreRequest, answers: Sequence[Answer], *, ends: bool) -> list[TokenEvent]:
    """Events of scored tokens; with `ends`, the last one finishes its stream."""
    events = [
        TokenEvent(
            answer.token, answer.logprob, answer.top_logprobs if request.top_logprobs else None, None, answer.logprobs
        )
        for answer in answers
    ]
    if ends:
        events[-1] = replace(events[-1], finish_reason="stop")
    return events


def _row_chunk(chunk: Chunk) -> RowChunk:
    row = chunk.sequence.row
    if row is None:
        raise TypeError("a chunk is run on an open row")
    return RowChunk(row, chunk.positions.start, chunk.tokens, chunk.num_wanted)
