"""Which sequences advance in the next step. Plain Python, no torch.

Every sequence that decodes gets its one token in every step; what is left of the step's token budget goes to
prompts, first come first served, in chunks, so that a long prompt never holds up the others for long.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cogsmith.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `num_tokens` uncomputed tokens of a sequence, to be run in this step."""

    sequence: Sequence
    num_tokens: int

    @property
    def positions(self) -> range:
        """Positions of these tokens in their sequence."""
        start = self.sequence.num_computed
        return range(start, start + self.num_tokens)

    @property
    def tokens(self) -> list[int]:
        """The ids to run."""
        return self.sequence.tokens[self.positions.start : self.positions.stop]

    @property
    def num_wanted(self) -> int:
        """How many of these tokens, counted from the last, have their logits asked for."""
        return min(self.num_tokens, max(0, self.positions.stop - self.sequence.first_wanted))


class Scheduler:
    """Holds waiting and running sequences and deals out each step's tokens.

    `max_rows` sequences run at once; a step carries at most `max_tokens_per_step` tokens, more only where the
    decoding rows alone are more.
    """

    def __init__(self, max_rows: int, max_tokens_per_step: int) -> None:
        self.max_rows = max_rows
        self.max_tokens_per_step = max_tokens_per_step
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence behind the others."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def cancelled(self) -> list[Sequence]:
        """Sequences whose client has gone, to be removed before the next step."""
        return [sequence for sequence in (*self.running, *self.waiting) if sequence.cancelled]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    def schedule(self) -> list[Chunk]:
        """Admit what fits and deal out the tokens of one step; empty only when idle."""
        while self.waiting and len(self.running) < self.max_rows:
            self.running.append(self.waiting.popleft())
        decoding = [Chunk(sequence, 1) for sequence in self.running if sequence.num_uncomputed == 1]
        budget = max(1, self.max_tokens_per_step - len(decoding))
        return decoding + self._prompt_chunks(budget)

    def _prompt_chunks(self, budget: int) -> list[Chunk]:
        chunks = []
        for sequence in self.running:
            if sequence.num_uncomputed > 1 and budget > 0:
                num_tokens = min(sequence.num_uncomputed, budget)
                chunks.append(Chunk(sequence, num_tokens))
                budget -= num_tokens
        return chunks
