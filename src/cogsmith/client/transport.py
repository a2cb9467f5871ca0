"""A transport: how one prediction's operations reach a server, and how its text comes back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cogsmith.lmtp import AnyOperation


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for what, in seconds."""

    connect: float = 10.0
    """Until a connection stands."""
    first_output: float = 600.0
    """From a prediction's creation to its first output: a model that is started for it may take minutes."""
    idle: float = 60.0
    """For a sign of life on an open connection. Servers send one every 15 seconds or so."""


class Transport(Protocol):
    """A way to a server. Any number of predictions may run at once."""

    ends_by_itself: bool
    """Whether a prediction's text ends when all was said. If not, the reader closes it then."""

    def run(self, operations: Sequence[AnyOperation]) -> AsyncGenerator[str]:
        """Run the operations as one prediction; yield its text in pieces of any size.

        Closing the generator before its end cancels the prediction. Raises AuthenticationError, NotFound,
        RequestRejected, RateLimited, ServiceUnavailable where nothing has run; PredictionFailed, PredictionCanceled,
        StreamBroken later.
        """

    async def aclose(self) -> None:
        """Free what the transport holds. Idempotent."""
