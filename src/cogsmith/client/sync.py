"""The client for programs without an event loop: the same one, on a loop in a thread of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Literal, TypeVar, Unpack, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from cogsmith.client.client import AsyncClient, Prompt
from cogsmith.client.embeddings import Embeddings
from cogsmith.client.options import EmbedOptions, GenerateOptions, ScoreOptions
from cogsmith.client.results import Generation, ScoredOption, Token
from cogsmith.client.stream import Stream
from cogsmith.client.text import TextStream
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.errors import ClientError

T = TypeVar("T")


@contextlib.contextmanager
def run_in_thread(connection: AbstractAsyncContextManager[AsyncClient]) -> Iterator[Client]:
    """Open `connection` on an event loop in a new thread; close both at the end."""
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(connection) as client:
        thread = LoopThread(portal)
        try:
            yield Client(thread, client)
        finally:
            thread.is_open = False


class LoopThread:
    """The event loop on which a client runs; not `is_open` once that is closed."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self.is_open = True

    @overload
    def call(self, work: Callable[[], Awaitable[T]]) -> T: ...

    @overload
    def call(self, work: Callable[[], T]) -> T: ...

    def call(self, work: Callable[[], Any]) -> Any:
        """Return what `work` gives there. Raises what it raises, and ClientError where the client was closed."""
        if not self.is_open:
            raise ClientError("the client was closed", fix="make the call inside its `with`")
        return self._portal.call(work)


class Client:
    """A served model. Made by `with connect(...) as client`. May be used by several threads.

    Every method does what AsyncClient's of that name does, and raises the same.
    """

    def __init__(self, thread: LoopThread, client: AsyncClient) -> None:
        self._thread = thread
        self._client = client

    def generate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> BlockingStream:
        """Start to continue `prompt`; return its tokens: `for token in stream`, or `stream.result()`."""
        return BlockingStream(self._thread, self._thread.call(partial(self._client.generate, prompt, **options)))

    def score(self, prompt: Prompt, options: Sequence[Prompt], **settings: Unpack[ScoreOptions]) -> list[ScoredOption]:
        """Return each option with its log-probabilities as a continuation of `prompt`."""
        return self._thread.call(partial(self._client.score, prompt, options, **settings))

    def distribution(
        self,
        prompt: Prompt,
        options: Sequence[Prompt],
        *,
        normalise: Literal["sum", "mean"] = "sum",
        **settings: Unpack[ScoreOptions],
    ) -> list[float]:
        """Return the options' probabilities among themselves, in order; they sum to 1."""
        call = partial(self._client.distribution, prompt, options, normalise=normalise, **settings)
        return self._thread.call(call)

    def embed(self, texts: Sequence[Prompt], **options: Unpack[EmbedOptions]) -> Embeddings:
        """Return the vectors of `texts`."""
        return self._thread.call(partial(self._client.embed, texts, **options))

    def text(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> BlockingTextStream:
        """Continue `prompt`; return the text while it comes."""
        return BlockingTextStream(self._thread, self._thread.call(partial(self._client.text, prompt, **options)))

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[GenerateOptions]) -> BlockingTextStream:
        """Answer chat `messages` through the model's own template; return the text while it comes."""
        return BlockingTextStream(self._thread, self._thread.call(partial(self._client.chat, messages, **options)))

    def model_info(self) -> Mapping[str, Any]:
        """Return what the server says of itself."""
        return self._thread.call(self._client.model_info)

    def tokenizer(self) -> ClientTokenizer:
        """Return the tokenizer, the given one or the server's own."""
        return self._thread.call(self._client.tokenizer)


class BlockingStream:
    """Iterate over it for tokens, or call `result()`; `inner` tells of finish reason, usage and timing."""

    def __init__(self, thread: LoopThread, inner: Stream) -> None:
        self.inner = inner
        self._thread = thread

    def result(self) -> Generation:
        """Wait for the end; return all of it."""
        return self._thread.call(self.inner.result)

    def close(self) -> None:
        """End the call, where it has not ended. Idempotent."""
        if self._thread.is_open:
            self._thread.call(self.inner.aclose)

    def __iter__(self) -> Iterator[Token]:
        return iterate(self._thread, self.inner)

    def __enter__(self) -> BlockingStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BlockingTextStream:
    """Iterate over it for pieces of text, or call `result()`; `inner.tokens` tells of finish reason and usage."""

    def __init__(self, thread: LoopThread, inner: TextStream) -> None:
        self.inner = inner
        self._thread = thread

    def result(self) -> str:
        """Wait for the end; return the text that was not yet iterated over."""
        return self._thread.call(self.inner.result)

    def close(self) -> None:
        """End the call, where it has not ended. Idempotent."""
        if self._thread.is_open:
            self._thread.call(self.inner.aclose)

    def __iter__(self) -> Iterator[str]:
        return iterate(self._thread, self.inner)

    def __enter__(self) -> BlockingTextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def iterate(portal: BlockingPortal | LoopThread, items: AsyncIterator[T]) -> Iterator[T]:
    """Yield the items, each awaited on the portal's event loop."""
    while (item := portal.call(partial(_next, items))) is not None:
        yield item


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)
