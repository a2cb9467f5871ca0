"""Trying again, where an error allows it: how often, for how long, how far apart.

Not by stamina, which tells hooks of the whole process of every attempt: where structlog is installed, the default one
prints to stdout, which belongs to the program that uses this library.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from cogsmith.errors import ClientError, InternalError, RateLimited, ServiceUnavailable

T = TypeVar("T")

log = logging.getLogger("cogsmith.client")
"""Hears, at INFO, of every attempt that is made again; `wait` of a record is the seconds until then."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to try, for how long, and how far apart, in seconds."""

    attempts: int | None
    seconds: float
    first_wait: float
    longest_wait: float

    def wait(self, num_failed: int) -> float:
        """Return how long to wait after so many attempts: twice as long each time, and never in step with others."""
        return min(
            self.longest_wait, self.first_wait * 2.0 ** min(num_failed - 1, 30) + random.uniform(0, self.first_wait)
        )


BRIEF = Patience(attempts=5, seconds=120.0, first_wait=0.1, longest_wait=5.0)
"""For a server that should answer."""

FOR_A_SLOT = Patience(attempts=None, seconds=60.0, first_wait=0.02, longest_wait=0.5)
"""For a Cog server, which frees a slot only some time after its last answer, so that "at capacity" is often not so."""


async def retried(
    work: Callable[[], Awaitable[T]], again: Callable[[ClientError], bool], patience: Patience = BRIEF
) -> T:
    """Return what `work` gives. After an error for which `again` holds, try anew: when the server said, or soon.

    Raises the last error, also where the server says to come back later than `patience` lasts.
    """
    started = time.monotonic()
    for attempt in itertools.count(1):
        try:
            return await work()
        except ClientError as error:
            wait = patience.wait(attempt) if (asked := _asked_wait(error)) is None else asked
            left = patience.seconds - (time.monotonic() - started)
            if not again(error) or attempt == patience.attempts or wait > left:
                raise
            log.info("%s; trying again in %.1f s", error.message, wait, extra={"wait": wait})
            await asyncio.sleep(wait)
    raise InternalError("no attempt was made")


def _asked_wait(error: ClientError) -> float | None:
    """Return the seconds that the server asked to wait, if it did."""
    return error.retry_after if isinstance(error, RateLimited | ServiceUnavailable) else None
