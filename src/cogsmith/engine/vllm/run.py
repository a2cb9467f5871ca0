"""One stream: its pieces go through vLLM, its events to the sink."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from vllm.inputs import tokens_input
from vllm.outputs import CompletionOutput
from vllm.v1.engine.async_llm import AsyncLLM

from cogsmith.engine.answer import Answer
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.constraint import forced_events, with_forced
from cogsmith.engine.request import Event, FailedEvent, GenerateRequest, ScoreRequest
from cogsmith.engine.sequence import Sequence
from cogsmith.engine.step import drawn_event, scored_events
from cogsmith.engine.vllm import answer_row
from cogsmith.engine.vllm.params import Piece, next_token, seeded, side_by_side, whole


class Runner:
    """Runs sequences on vLLM. `names` makes its request ids, `most_pieces` bounds the rows that one SCORE takes."""

    def __init__(self, llm: AsyncLLM, info: EngineInfo, names: Iterator[str], most_pieces: int) -> None:
        self._llm = llm
        self._info = info
        self._names = names
        self._most_pieces = most_pieces

    async def run(self, sequence: Sequence) -> None:
        """Run a sequence to its end. Cancelling this ends vLLM's work on it within a step."""
        if isinstance(sequence.request, ScoreRequest):
            await self._score(sequence, sequence.request)
        elif not isinstance(sequence.request, GenerateRequest):
            raise TypeError("vLLM streams tokens, and gives nothing else")
        elif sequence.constraint is not None:
            await self._follow(sequence, sequence.request)
        else:
            await self._generate(sequence, sequence.request)

    async def _generate(self, sequence: Sequence, request: GenerateRequest) -> None:
        async with aclosing(self._answers(whole(request, self._info))) as steps:
            async for answers in steps:
                if _emit(sequence, [drawn_event(sequence, answer, self._info) for answer in answers]):
                    return

    async def _follow(self, sequence: Sequence, request: GenerateRequest) -> None:
        """Generate under a constraint, a token at a time: what it forces is never drawn, and its grammar runs here."""
        request = seeded(request)
        forced = list(forced_events(sequence, self._info))
        ended = bool(forced) and _emit(sequence, forced)
        for num_drawn in itertools.count():
            if ended:
                return
            (answer,) = await self._collect(next_token(request, sequence, num_drawn, self._info))
            event = drawn_event(sequence, answer, self._info)
            # The grammar's process may take its time.
            ended = _emit(sequence, await asyncio.to_thread(self._with_forced, sequence, event))

    def _with_forced(self, sequence: Sequence, event: Event) -> list[Event]:
        return list(with_forced(sequence, event, self._info))

    async def _score(self, sequence: Sequence, request: ScoreRequest) -> None:
        parts = await asyncio.gather(*map(self._collect, side_by_side(request, self._info, self._most_pieces)))
        first = [] if request.prompt else [Answer.of_first(request)]
        answers = [*first, *(answer for part in parts for answer in part)]
        _emit(sequence, scored_events(request, answers, ends=True))

    async def _collect(self, piece: Piece) -> list[Answer]:
        async with aclosing(self._answers(piece)) as steps:
            return [answer async for answers in steps for answer in answers]

    async def _answers(self, piece: Piece) -> AsyncGenerator[list[Answer]]:
        prompt = tokens_input(list(piece.request.prompt))
        async with aclosing(self._llm.generate(prompt, piece.params, next(self._names))) as outputs:
            async for output in outputs:
                yield list(_read(piece, output.outputs[0]))


def _read(piece: Piece, output: CompletionOutput) -> Iterator[Answer]:
    """Yield the answers of one step's output: one, or several where this process was late in fetching them."""
    rows = output.logprobs
    for token, start, end in zip(output.token_ids, rows.start_indices, rows.end_indices, strict=True):
        entries = zip(rows.token_ids[start:end], rows.logprobs[start:end], strict=True)
        yield answer_row.read(piece.request, token, entries)


def _emit(sequence: Sequence, events: list[Event]) -> bool:
    """Hand events over, up to the one that ends the stream; return whether it has ended."""
    for place, event in enumerate(events):
        if isinstance(event, FailedEvent) or event.finish_reason is not None:
            events = events[: place + 1]
            break
    return sequence.cancelled or (bool(events) and sequence.emit(*events))
