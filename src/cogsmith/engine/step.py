"""One engine step: schedule, run, postprocess. Knows no threads and no clients' transport."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import Event, FailedEvent, ScoreRequest, TokenEvent
from cogsmith.engine.runner import RowChunk, Runner
from cogsmith.engine.sampler import sample, token_logprobs
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
            if isinstance(chunk.sequence.request, ScoreRequest):
                self._score(chunk, part)
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
            self._emit(sequence, TokenEvent(answer.token, answer.logprob, answer.top_logprobs, reason))

    def _score(self, chunk: Chunk, logits: torch.Tensor) -> None:
        sequence = chunk.sequence
        end = chunk.positions.stop
        targets = sequence.tokens[end - chunk.num_wanted + 1 : end + 1]
        if targets:
            logprobs = token_logprobs(logits, targets)
            ends = end > sequence.last_position
            events = scored_events(targets, logprobs, ends=ends) if all(map(math.isfinite, logprobs)) else [_NOT_FINITE]
            self._emit(sequence, *events)

    def _emit(self, sequence: TokenSequence, *events: Event) -> None:
        if sequence.emit(*events):
            self.drop(sequence)


def scored_events(tokens: Sequence[int], logprobs: Sequence[float], *, ends: bool) -> list[Event]:
    """Events of scored tokens; with `ends`, the last one finishes its stream."""
    events: list[Event] = [TokenEvent(*scored) for scored in zip(tokens, logprobs, strict=True)]
    if ends:
        events[-1] = TokenEvent(tokens[-1], logprobs[-1], finish_reason="stop")
    return events


def _row_chunk(chunk: Chunk) -> RowChunk:
    row = chunk.sequence.row
    if row is None:
        raise TypeError("a chunk is run on an open row")
    return RowChunk(row, chunk.positions.start, chunk.tokens, chunk.num_wanted)
