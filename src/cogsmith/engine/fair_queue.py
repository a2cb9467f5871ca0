"""What waits for a row: each client's in turn, and the clients by turns."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A sequence, or a text."""

    client: Hashable


W = TypeVar("W", bound=Waiting)


class FairQueue(Generic[W]):
    """A queue for many clients. One that sends hundreds of requests at once holds nobody else's first one up."""

    def __init__(self) -> None:
        self._preempted: deque[W] = deque()
        self._lines: dict[Hashable, list[W]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[W]:
        """Go through all that wait, in the order in which they are to get a row."""
        yield from self._preempted
        lines = list(self._lines.values())
        for place in itertools.count():
            lines = [line for line in lines if place < len(line)]
            if not lines:
                return
            for line in lines:
                yield line[place]

    def append(self, sequence: W) -> None:
        """Add a new sequence behind its client's others."""
        self._lines.setdefault(sequence.client, []).append(sequence)
        self._length += 1

    def push_back(self, sequence: W) -> None:
        """Add one that had a row and lost it: it goes before all others."""
        self._preempted.appendleft(sequence)
        self._length += 1

    def remove(self, sequence: W) -> None:
        """Take a sequence out; its client's next comes after those of the other clients."""
        self._length -= 1
        if sequence in self._preempted:
            self._preempted.remove(sequence)
            return
        line = self._lines.pop(sequence.client)
        line.remove(sequence)
        if line:
            self._lines[sequence.client] = line
