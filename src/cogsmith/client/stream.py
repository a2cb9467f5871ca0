"""The tokens of one call, of all its branches, in the order in which they come."""

from __future__ import annotations

from cogsmith.client.progress import Progress
from cogsmith.client.results import Generation, Token
from cogsmith.lmtp import EndReason, Timing, Usage


class Stream:
    """Iterate over it for tokens, or await `result()`. Closing or dropping it before its end cancels the call.

        async with client.generate(prompt) as stream:
            async for token in stream: ...

    Nothing is lost or repeated when a connection breaks: the call goes on where it was, or raises StreamBroken.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @property
    def prompt(self) -> tuple[int, ...]:
        """The prompt's ids, known once a token has come."""
        return self._progress.prompt

    @property
    def timing(self) -> Timing | None:
        """How long it took, as the server measured the branch that ended last; None where it does not."""
        return self._progress.timing

    @property
    def finish_reason(self) -> EndReason | None:
        """Why the first branch ended; None while it has not."""
        return self._progress.finish_reason

    @property
    def usage(self) -> Usage:
        """Tokens that have come, over all branches; the prompt counts in each."""
        return self._progress.usage

    async def result(self) -> Generation:
        """Wait for the end; return all of it, also what was iterated over before. Raises what the stream raises."""
        async for _ in self:
            pass
        return self._progress.generation()

    async def aclose(self) -> None:
        """End the call, where it has not ended. Idempotent."""
        await self._progress.aclose()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Token:
        """Return the next token of any branch.

        Raises DeadlineExceeded, OperationFailed, StreamBroken, PredictionFailed, PredictionCanceled,
        UnsupportedByServer, TokenizerMismatch, and what a transport raises.
        """
        if (token := await self._progress.next_token()) is None:
            raise StopAsyncIteration
        return token

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # A loop that was left by `break` closes nothing, and the server would go on for nobody.
        self._progress.abandon()
