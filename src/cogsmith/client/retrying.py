"""Trying again, where an error allows it: how often, for how long, how far apart."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity
from tenacity import AsyncRetrying, RetryCallState

from cogsmith.errors import ClientError, RateLimited, ServiceUnavailable

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

    @property
    def stop(self) -> tenacity.stop.stop_base:
        """When to give up."""
        late = tenacity.stop_before_delay(self.seconds)
        return late if self.attempts is None else late | tenacity.stop_after_attempt(self.attempts)


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
    soon = tenacity.wait_exponential_jitter(
        multiplier=patience.first_wait, max=patience.longest_wait, jitter=patience.first_wait
    )

    def wait(state: RetryCallState) -> float:
        error = _error(state)
        asked = error.retry_after if isinstance(error, RateLimited | ServiceUnavailable) else None
        return soon(state) if asked is None else asked

    retrying = AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, ClientError) and again(error)),
        wait=wait,
        stop=patience.stop,
        before_sleep=_tell,
        reraise=True,
    )

    async def attempt() -> T:
        return await work()

    return await retrying(attempt)


def _tell(state: RetryCallState) -> None:
    error = _error(state)
    reason = error.message if isinstance(error, ClientError) else error
    log.info("%s; trying again in %.1f s", reason, state.upcoming_sleep, extra={"wait": state.upcoming_sleep})


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
