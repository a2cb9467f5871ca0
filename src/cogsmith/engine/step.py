"""One engine step: schedule, run, postprocess. Knows no threads and no clients' transport."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from cogsmith.engine.answer import Answer, Wanted
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.constraint import IMPOSSIBLE, accept, forced_events, with_forced
from cogsmith.engine.request import (
    AnyEvent,
    Cache,
    ComputedEvent,
    Event,
    FailedEvent,
    FinishReason,
    ForwardRequest,
    GenerateRequest,
    ScoreRequest,
    TokenEvent,
)
from cogsmith.engine.rows.runner import ImagePrompt, RowChunk, Runner
from cogsmith.engine.sampler import sample, score
from cogsmith.engine.scheduler import Chunk, Scheduler
from cogsmith.engine.sequence import Sequence as TokenSequence

NOT_FINITE = FailedEvent("the model gave infinite or undefined numbers here; its dtype may be too narrow for it")


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

    def begin(self, sequence: TokenSequence) -> bool:
        """Give a new sequence the tokens that its constraint forces before any is sampled; return whether it ends."""
        events = list(forced_events(sequence, self._info)) if sequence.constraint is not None else []
        return bool(events) and sequence.emit(*events)

    def drop(self, sequence: TokenSequence, *, is_spoiled: bool = False) -> None:
        """End a sequence: forget it and free its row; what it computed too, where the model overflowed on it."""
        self.scheduler.remove(sequence, is_spoiled=is_spoiled)
        self._runner.close_row(sequence.row)

    def fail_all(self, message: str) -> None:
        """End every running sequence with `message`, after a step that could not be completed.

        Caches may be half-written then, so the runner goes with them, and all that was known of texts.
        """
        failed = self.scheduler.forget()
        # Freed before there is another: a pool may take most of the memory.
        del self._runner
        self._runner = self._new_runner()
        for sequence in failed:
            sequence.emit(FailedEvent(message))

    def _run(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        for sequence in self.scheduler.preempted:
            self._runner.close_row(sequence.row)
        self._runner.change_pages(self.scheduler.memory.take_changes())
        return self._runner.forward([_row_chunk(chunk) for chunk in chunks])

    def _postprocess(self, chunks: Sequence[Chunk], logits: torch.Tensor) -> None:
        self.scheduler.advance(chunks)
        wanted = [chunk for chunk in chunks if chunk.num_wanted]
        parts = dict(zip(wanted, torch.split(logits, [chunk.num_wanted for chunk in wanted]), strict=True))
        scored = [chunk for chunk in wanted if isinstance(chunk.sequence.request, ScoreRequest)]
        sampled = [chunk for chunk in wanted if isinstance(chunk.sequence.request, GenerateRequest)]
        if scored:
            self._score(scored, torch.cat([parts[chunk] for chunk in scored]))
        if sampled:
            rest = logits if len(sampled) == len(wanted) else torch.cat([parts[chunk] for chunk in sampled])
            self._sample([chunk.sequence for chunk in sampled], rest)
        for chunk in wanted:
            if isinstance(chunk.sequence.request, ForwardRequest):
                self._collect(chunk, chunk.sequence.request, parts[chunk])

    def _sample(self, sequences: Sequence[TokenSequence], logits: torch.Tensor) -> None:
        answers = sample(logits, sequences, self._info.vocab_size)
        # All constraints are told before any is waited for: their grammars work side by side.
        events = [drawn_event(*pair, self._info) for pair in zip(sequences, answers, strict=True)]
        for sequence, event in zip(sequences, events, strict=True):
            self._emit(sequence, *with_forced(sequence, event, self._info))

    def _score(self, chunks: Sequence[Chunk], logits: torch.Tensor) -> None:
        targets = [chunk.sequence.tokens[chunk.stop - chunk.num_wanted + 1 : chunk.stop + 1] for chunk in chunks]
        wanted = [Wanted.with_score(_score_request(chunk.sequence)) for chunk in chunks]
        rows = [want for want, scored in zip(wanted, targets, strict=True) for _ in scored]
        answers = iter(score(logits, [*itertools.chain(*targets)], rows, self._info.vocab_size))
        for chunk, scored in zip(chunks, targets, strict=True):
            sequence = chunk.sequence
            sequence.num_answered += len(scored)
            ends = chunk.stop > sequence.last_position
            self._emit(
                sequence, *scored_events(_score_request(sequence), [*itertools.islice(answers, len(scored))], ends=ends)
            )

    def _collect(self, chunk: Chunk, request: ForwardRequest, logits: torch.Tensor) -> None:
        """Keep logits that are asked for as they are, and give them with the last."""
        sequence = chunk.sequence
        sequence.logits.append(logits.float().cpu())
        sequence.num_answered += chunk.num_wanted
        if chunk.stop <= sequence.last_position:
            return
        values = torch.cat(sequence.logits)
        if not bool((values.isfinite() | values.isneginf()).all()):
            self._emit(sequence, NOT_FINITE)
            return
        cache = self._cache_of(sequence, chunk.stop) if request.keeps_cache else None
        self._emit(sequence, ComputedEvent(values.numpy(), cache))

    def _cache_of(self, sequence: TokenSequence, num_tokens: int) -> Cache:
        pages = () if sequence.lease is None else sequence.lease.pages
        return Cache(tuple(sequence.tokens), num_tokens, self._runner.layers_of(sequence.row, pages, num_tokens))

    def _emit(self, sequence: TokenSequence, *events: AnyEvent) -> None:
        if sequence.emit(*events):
            self.drop(sequence, is_spoiled=NOT_FINITE in events)


def drawn_event(sequence: TokenSequence, answer: Answer, info: EngineInfo) -> Event:
    """Append a sampled token; return its event, or the reason why there is none."""
    if not answer.is_possible:
        return IMPOSSIBLE
    if not answer.is_finite:
        return NOT_FINITE
    sequence.append(answer.token)
    reason = sequence.finish_reason(answer.token, info.eos_ids, info.max_context)
    if reason is None:
        accept(sequence, info)
    return TokenEvent(answer.token, answer.logprob, answer.top_logprobs, reason, answer.logprobs)


def scored_events(request: ScoreRequest, answers: Sequence[Answer], *, ends: bool) -> list[Event]:
    """Events of scored tokens; with `ends`, the last one finishes its stream."""
    if not all(answer.is_finite for answer in answers):
        return [NOT_FINITE]
    lists = request.top_logprobs > 0
    reasons: list[FinishReason | None] = [*[None] * (len(answers) - 1), "stop" if ends else None]
    return [
        TokenEvent(answer.token, answer.logprob, answer.top_logprobs if lists else None, reason, answer.logprobs)
        for answer, reason in zip(answers, reasons, strict=True)
    ]


def _score_request(sequence: TokenSequence) -> ScoreRequest:
    if not isinstance(sequence.request, ScoreRequest):
        raise TypeError("only SCORE requests are scored")
    return sequence.request


def _row_chunk(chunk: Chunk) -> RowChunk:
    sequence = chunk.sequence
    pages = () if sequence.lease is None else sequence.lease.pages
    media = sequence.request.media
    prompt = None if media is None else ImagePrompt(len(sequence.request.prompt), media)
    # Only a row's first chunk starts where the given tokens end.
    cache = sequence.cache if chunk.start == sequence.num_cached > 0 else None
    given = None if cache is None else cache.layers
    return RowChunk(sequence.row, chunk.start, chunk.tokens, chunk.num_wanted, pages, prompt, given)
