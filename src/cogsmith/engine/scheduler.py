"""Which sequences advance in the next step, and who gets memory for it. Plain Python, no torch.

Every sequence that decodes gets its token in every step. Prompts advance beside them in chunks: the oldest takes
half of the step's prompt tokens, the rest goes to the shortest, so that a long prompt holds nobody up for long and
none waits for ever.

A sequence gets a row when there is room for all tokens that it has. Those that decode grow; when there is no room for
that, the youngest loses its row, waits before all others, and computes again what has been forgotten by then. So
memory that runs out delays streams and ends none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cogsmith.engine.fair_queue import FairQueue
from cogsmith.engine.kv.memory import KVMemory, Lease
from cogsmith.engine.kv.prefix_tree import common_prefix
from cogsmith.engine.sequence import Donor, Sequence

_MOST_FORCED = 64
"""Tokens of a decoding sequence run in one step, whatever the prompts' budget: a constraint may force several."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`num_tokens` tokens of a sequence from position `start` on, to be run in this step.

    The logits after the last `num_wanted` of them are asked for.
    """

    sequence: Sequence
    start: int
    num_tokens: int
    num_wanted: int

    @classmethod
    def next_of(cls, sequence: Sequence, num_tokens: int) -> Chunk:
        """The next `num_tokens` tokens that a sequence has to compute."""
        start = sequence.num_computed
        wanted = start + num_tokens - max(start, sequence.first_wanted)
        return cls(sequence, start, num_tokens, max(0, wanted))

    @property
    def stop(self) -> int:
        """The position behind the chunk's last token."""
        return self.start + self.num_tokens

    @property
    def tokens(self) -> list[int]:
        """The ids to run."""
        return self.sequence.tokens[self.start : self.stop]


class Scheduler:
    """Holds waiting and running sequences and deals out each step's tokens.

    `max_rows` sequences run at once; a step carries one token of each that decodes and at most `max_prompt_tokens` of
    the others, of whose logits at most `max_logits` are asked for. With fewer than 4 prompt tokens, a prompt's half
    would be a single token, and it would never advance.
    """

    def __init__(self, memory: KVMemory, max_rows: int, max_prompt_tokens: int, max_logits: int = 512) -> None:
        self.memory = memory
        self.max_rows = max_rows
        self.max_prompt_tokens = max_prompt_tokens
        self.max_logits = max_logits
        self.waiting = FairQueue[Sequence]()
        self.running: list[Sequence] = []
        self.preempted: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence behind its client's others."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence, *, is_spoiled: bool = False) -> None:
        """Forget a sequence that has ended; what it computed too, for others to begin with, if that is spoiled."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        if sequence.lease is not None:
            (self.memory.discard if is_spoiled else self.memory.close)(sequence.lease)
            sequence.lease = None

    def cancelled(self) -> list[Sequence]:
        """Sequences whose client has gone, to be removed before the next step."""
        return [sequence for sequence in (*self.running, *self.waiting) if sequence.cancelled]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    def schedule(self) -> list[Chunk]:
        """Admit what fits and deal out the tokens of one step; empty only when idle.

        `preempted` then names those that lost their row: what a row back-end keeps for them is void.
        """
        self.preempted = []
        # Those that run come first: a newcomer must not take the room that they grow into.
        self._make_room()
        self._admit()
        decoding = [sequence for sequence in self.running if _decodes(sequence)]
        return [Chunk.next_of(sequence, sequence.num_uncomputed) for sequence in decoding] + self._prompt_chunks()

    def advance(self, chunks: Iterable[Chunk]) -> None:
        """Note that these chunks have been computed: others may use what is in their pages."""
        for chunk in chunks:
            sequence = chunk.sequence
            if sequence.lease is not None:
                self.memory.commit(sequence.lease, sequence.tokens, chunk.stop)

    def forget(self) -> list[Sequence]:
        """Forget all that runs and all that is in memory; return the sequences that ran."""
        running, self.running = self.running, []
        for sequence in running:
            sequence.lease = None
        self.memory.clear()
        return running

    def _make_room(self) -> None:
        """Have room for the tokens that running sequences have got; the youngest make it where there is none."""
        for sequence in list(self.running):
            while sequence.lease is not None and not self.memory.reserve(sequence.lease, len(sequence.tokens)):
                self._preempt(self.running[-1])

    def _preempt(self, sequence: Sequence) -> None:
        if sequence.lease is None:
            raise ValueError("a running sequence has a lease")
        self.running.remove(sequence)
        self.memory.close(sequence.lease)
        sequence.lease = None
        self.waiting.push_back(sequence)
        self.preempted.append(sequence)

    def _admit(self) -> None:
        admitted: list[Sequence] = []
        for sequence in self.waiting:
            if len(self.running) >= self.max_rows or sequence in self.preempted:
                break
            if self._must_wait(sequence):
                continue
            sequence.lease = self._lease(sequence)
            if sequence.lease is None:
                break
            self.running.append(sequence)
            admitted.append(sequence)
        for sequence in admitted:
            self.waiting.remove(sequence)

    def _lease(self, sequence: Sequence) -> Lease | None:
        if sequence.num_cached:
            return self.memory.open_alone(len(sequence.tokens), sequence.num_cached)
        return self.memory.open(sequence.tokens, sequence.num_shareable)

    def _must_wait(self, sequence: Sequence) -> bool:
        """Whether another sequence is computing a beginning that this one could use."""
        if sequence.donor is None or not self._is_computing(sequence.donor):
            sequence.donor = self._find_donor(sequence)
        return sequence.donor is not None

    def _is_computing(self, donor: Donor) -> bool:
        return donor.sequence.lease is not None and donor.sequence.num_computed < donor.num_common

    def _find_donor(self, sequence: Sequence) -> Donor | None:
        prefilling = [other for other in self.running if not (_decodes(other) or other.num_cached)]
        if not prefilling or not self.memory.shares:
            return None
        limit = sequence.num_shareable
        commons = [min(limit, common_prefix(sequence.tokens, other.tokens)) for other in prefilling]
        donor = Donor(*max(zip(prefilling, commons, strict=True), key=lambda pair: pair[1]))
        # For less than a page, starting at once is better.
        gain = donor.num_common - self.memory.num_known(sequence.tokens, limit)
        return donor if gain >= self.memory.page_size and self._is_computing(donor) else None

    def _prompt_chunks(self) -> list[Chunk]:
        prompts = [sequence for sequence in self.running if not _decodes(sequence)]
        others = sorted(prompts[1:], key=lambda sequence: sequence.num_uncomputed)
        left, logits_left = self.max_prompt_tokens, self.max_logits
        chunks: list[Chunk] = []
        for sequence in (*prompts[:1], *others):
            share = left // 2 if others and not chunks else left
            unwanted = max(0, sequence.first_wanted - sequence.num_computed)
            chunk = Chunk.next_of(sequence, min(sequence.num_uncomputed, share, unwanted + logits_left))
            # A single token would tell the runner that its row decodes from now on.
            if chunk.num_tokens > 1:
                chunks.append(chunk)
                left -= chunk.num_tokens
                logits_left -= chunk.num_wanted
        return chunks


def _decodes(sequence: Sequence) -> bool:
    return sequence.num_uncomputed == 1 or (bool(sequence.generated) and sequence.num_uncomputed <= _MOST_FORCED)
