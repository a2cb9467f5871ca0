"""Text over tokens: whole characters while they come, and nothing of a stop text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import TracebackType

from cogsmith.client.handshake import Handshake
from cogsmith.client.results import Token
from cogsmith.client.stream import Stream
from cogsmith.detokenize import StopStrings, TextDecoder
from cogsmith.errors import RequestRejected


class TextStream:
    """Iterate over it for pieces of text. Closing it before its end cancels the call. `tokens` is what it reads."""

    def __init__(
        self,
        tokens: Stream,
        handshake: Handshake,
        stops: Sequence[str],
        min_tokens: int,
        stop_ids: Collection[int] = (),
        eos_ids: Collection[int] | None = None,
    ) -> None:
        self.tokens = tokens
        self._handshake = handshake
        self._eos_ids = eos_ids
        self._stops = StopStrings(stops)
        self._min_tokens = min_tokens
        self._stop_ids = stop_ids
        self._decoder: TextDecoder | None = None
        self._num_tokens = 0

    async def result(self) -> str:
        """Wait for the end; return the text that was not yet iterated over. Raises what the tokens raise."""
        return "".join([piece async for piece in self])

    async def aclose(self) -> None:
        """End the call, where it has not ended. Idempotent."""
        await self.tokens.aclose()

    def __aiter__(self) -> TextStream:
        return self

    async def __anext__(self) -> str:
        """Return the next piece, at least a character. Raises what the tokens raise."""
        async for token in self.tokens:
            if self._decoder is None:
                self._decoder = TextDecoder((await self._handshake.tokenizer()).decode, self.tokens.prompt)
                if self._eos_ids is None:
                    self._eos_ids = (await self._handshake.server()).eos_ids
            if piece := self._push(self._decoder, token):
                return piece
        if self._decoder is not None and (rest := self._shown(self._decoder.flush()) + self._stops.flush()):
            return rest
        raise StopAsyncIteration

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _push(self, decoder: TextDecoder, token: Token) -> str:
        self._num_tokens += 1
        # An end token has no text for a reader, even where the tokenizer does not call it special.
        ends = token.finish_reason == "stop" and (self._eos_ids is None or token.token in self._eos_ids)
        # Nor has a stop that is one token.
        ends = ends or (token.finish_reason == "stop_sequence" and token.token in self._stop_ids)
        return "" if ends else self._shown(decoder.push(token.token))

    def _shown(self, text: str) -> str:
        return self._stops.push(text, armed=self._num_tokens > self._min_tokens)


def check_single(n: int) -> None:
    """Raises RequestRejected for several continuations, whose text would be mixed."""
    if n != 1:
        raise RequestRejected(f"n is {n}, and text comes from one continuation", fix="use generate for several")
