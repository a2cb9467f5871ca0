"""Which sequences advance in the next step. Plain Python, no torch.

Every sequence that decodes gets its one token in every step. Prompts advance beside them in chunks: the oldest takes
half of the step's prompt tokens, the rest goes to the shortest, so that a long prompt holds nobody up for long and
none waits for ever.
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

    `max_rows` sequences run at once; a step carries one token of each that decodes and at most `max_prompt_tokens` of
    the others. With fewer than 4 of those, a prompt's half would be a single token, and it would never advance.
    """

    def __init__(self, max_rows: int, max_prompt_tokens: int) -> None:
        self.max_rows = max_rows
        self.max_prompt_tokens = max_prompt_tokens
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
        return decoding + self._prompt_chunks()

    def _prompt_chunks(self) -> list[Chunk]:
        prompts = [sequence for sequence in self.running if sequence.num_uncomputed > 1]
        others = sorted(prompts[1:], key=lambda sequence: sequence.num_uncomputed)
        left = self.max_prompt_tokens
        chunks: list[Chunk] = []
        for sequence in (*prompts[:1], *others):
            share = left // 2 if others and not chunks else left
            num_tokens = min(sequence.num_uncomputed, share)
            # A single token would tell the runner that its row decodes from now on.
            if num_tokens > 1:
                chunks.append(Chunk(sequence, num_tokens))
                left -= num_tokens
        return chunks
