"""Which running branches a client can cancel from another prediction: those whose operation had a `cancel_key`."""

from __future__ import annotations

import threading

from cogsmith.predictor.mailbox import Mailbox


class Registry:
    """Running branches by key, each as its prediction's mailbox and its number there. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._branches: dict[str, set[tuple[Mailbox, int]]] = {}

    def add(self, key: str, mailbox: Mailbox, stream: int) -> None:
        """Keep a branch under its key."""
        with self._lock:
            self._branches.setdefault(key, set()).add((mailbox, stream))

    def remove(self, key: str, mailbox: Mailbox, stream: int) -> None:
        """Forget a branch that has ended; one that is not known is none."""
        with self._lock:
            branches = self._branches.get(key, set())
            branches.discard((mailbox, stream))
            if not branches:
                self._branches.pop(key, None)

    def cancel(self, key: str) -> int:
        """Have every branch of a key ended in its own prediction; return how many there were."""
        with self._lock:
            branches = self._branches.pop(key, set())
        for mailbox, stream in branches:
            mailbox.cancel_stream(stream)
        return len(branches)

    def __len__(self) -> int:
        """How many branches are running that can be cancelled."""
        with self._lock:
            return sum(map(len, self._branches.values()))


RUNNING = Registry()
"""That of this process, which is one server."""
