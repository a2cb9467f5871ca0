"""What a prediction has used: tokens in, tokens out, time to the first token."""

from __future__ import annotations

import time
from collections.abc import Callable


class Meter:
    """Counts as a prediction goes and reports under the names that Replicate's own models use.

    `record` takes a metric's name and value, such as Cog's `record_metric`. Times are in seconds.
    """

    def __init__(self, record: Callable[[str, float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._record = record
        self._clock = clock
        self._started = clock()
        self._tokens_in = 0
        self._tokens_out = 0
        self._tokens_cached = 0

    def read(self, count: int, cached: int = 0) -> None:
        """Count tokens that the model has to read, and how many of them came with a cache."""
        self._tokens_in += count
        self._tokens_cached += cached

    def wrote(self, count: int) -> None:
        """Count tokens that went out, scored ones included."""
        if self._tokens_out == 0 and count:
            self._record("time_to_first_token", self._clock() - self._started)
        self._tokens_out += count

    def report(self) -> None:
        """Record the totals."""
        self._record("input_token_count", self._tokens_in)
        self._record("output_token_count", self._tokens_out)
        if self._tokens_cached:
            self._record("cached_token_count", self._tokens_cached)
