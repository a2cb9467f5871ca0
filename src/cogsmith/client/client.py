"""What a caller can ask of a served model."""

from __future__ import annotations

import copy
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import msgspec
from tokenizers import Tokenizer

from cogsmith.client import embeddings
from cogsmith.client.embeddings import Embeddings
from cogsmith.client.handshake import Handshake
from cogsmith.client.lowering import plan_generate, plan_score
from cogsmith.client.multiplexer import Multiplexer
from cogsmith.client.options import EmbedOptions, GenerateOptions, ScoreOptions
from cogsmith.client.progress import Plan, Progress
from cogsmith.client.requests import (
    check_deadline,
    embed_requests,
    generate_request,
    listed_options,
    score_request,
)
from cogsmith.client.results import ScoredOption
from cogsmith.client.stream import Stream
from cogsmith.client.text import TextStream, check_single
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.client.transport import Timeouts, Transport
from cogsmith.errors import RequestRejected

Prompt = str | Sequence[int]
"""A text, which the tokenizer turns into ids with the special tokens of a whole prompt, or the ids themselves."""


class AsyncClient:
    """A served model. Made by `async with connect(...) as client`; belongs to the event loop that made it.

    Calls of the same moment share one prediction. Before the first one the server is asked what it is.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        tokenizer: str | Path | Tokenizer | None = None,
        model: str | None = None,
        timeouts: Timeouts,
        max_recoveries: int = 2,
        num_images: int = 0,
    ) -> None:
        self._multiplexer = Multiplexer(transport, timeouts.first_output)
        self._handshake = Handshake(self._multiplexer, tokenizer, model, num_images)
        self._is_guest = False
        self._model = model
        self._max_recoveries = max_recoveries

    def generate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Stream:
        """Start to continue `prompt`; return its tokens: `async for token in stream`, or `await stream.result()`.

        Raises RequestRejected for options that have no meaning; the stream raises all else.
        """
        request = generate_request(() if isinstance(prompt, str) else prompt, options, self._model)
        stops_at_text = any(isinstance(stop, str) for stop in request.stop)

        async def plan() -> Plan:
            server = await self._handshake.server()
            # An extended server finds stop texts by itself, so ids alone need no tokenizer here.
            if not isinstance(prompt, str) and (server.is_extended or not stops_at_text):
                return plan_generate(request, server)
            tokenizer = await self._handshake.tokenizer()
            ids = tokenizer.encode(prompt) if isinstance(prompt, str) else request.prompt
            return plan_generate(msgspec.structs.replace(request, prompt=ids), server, tokenizer.decode)

        return self._stream(plan, options.get("deadline"))

    async def score(
        self, prompt: Prompt, options: Sequence[Prompt], **settings: Unpack[ScoreOptions]
    ) -> list[ScoredOption]:
        """Return each option, a text or ids, with its log-probabilities as a continuation of `prompt`.

        Raises RequestRejected, and what a Stream raises.
        """

        async def plan() -> Plan:
            server = await self._handshake.server()
            ids, *scored = await self._encoded(prompt, listed)
            return plan_score(score_request(ids, scored, settings, self._model), server)

        listed = listed_options(options)
        async with self._stream(plan, settings.get("deadline")) as stream:
            result = await stream.result()
        return [ScoredOption(branch.tokens) for branch in result.branches]

    async def distribution(
        self,
        prompt: Prompt,
        options: Sequence[Prompt],
        *,
        normalise: Literal["sum", "mean"] = "sum",
        **settings: Unpack[ScoreOptions],
    ) -> list[float]:
        """Return the options' probabilities among themselves, in order; they sum to 1.

        "sum" compares the probabilities of whole options, "mean" those per token (the geometric mean), which does not
        favour short options and is what LMQL's `distribution` gives. Raises what `score` raises.
        """
        if normalise not in ("sum", "mean"):
            raise RequestRejected(f"normalise is {normalise!r}", fix='give "sum" or "mean"')
        scored = await self.score(prompt, options, **settings)
        return softmax([one.logprob if normalise == "sum" else one.mean_logprob for one in scored])

    async def embed(self, texts: Sequence[Prompt], **options: Unpack[EmbedOptions]) -> Embeddings:
        """Return the vectors of `texts`, encoded by the server's tokenizer, or of lists of token ids, read as they are.

        Raises RequestRejected, UnsupportedByServer for a model that gives no vectors, OperationFailed for a text that
        is too long or a layer that is none, DeadlineExceeded, and what a transport raises.
        """
        deadline = options.get("deadline")
        check_deadline(deadline)
        requests = embed_requests(texts, options, self._model)
        embeddings.require_vectors(await self._handshake.server())
        return await embeddings.embed(requests, self._multiplexer, deadline, self._max_recoveries + 1)

    def text(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> TextStream:
        """Continue `prompt`; return the text while it comes: whole characters, and nothing of a stop text.

        Raises RequestRejected for options that have no meaning; the stream raises all else.
        """
        check_single(options.get("n", 1))
        return self._text(self.generate(prompt, **options), options)

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[GenerateOptions]) -> TextStream:
        """Answer chat `messages` (`{"role": …, "content": …}`) through the model's own template; return text.

        Raises as `text` does; the stream raises RequestRejected where the template takes no such messages.
        """
        check_single(options.get("n", 1))
        request = generate_request((), options, self._model)

        async def plan() -> Plan:
            server = await self._handshake.server()
            tokenizer = await self._handshake.tokenizer()
            ids = tokenizer.encode_chat(messages)
            return plan_generate(msgspec.structs.replace(request, prompt=ids), server, tokenizer.decode)

        return self._text(self._stream(plan, options.get("deadline")), options)

    async def model_info(self) -> Mapping[str, Any]:
        """Return what the server says of itself; empty where it says nothing."""
        return (await self._handshake.server()).facts

    async def tokenizer(self) -> ClientTokenizer:
        """Return the tokenizer, the given one or the server's own, known to be the server's.

        Raises TokenizerMismatch, UnsupportedByServer where the server sends none.
        """
        return await self._handshake.tokenizer()

    def through(self, transport: Transport) -> AsyncClient:
        """Return a client of the same server that reaches it by `transport`, which may bring images along.

        What this one has learnt of the server serves both, so this one is closed last.
        """
        other = copy.copy(self)
        other._multiplexer = self._multiplexer.through(transport)
        other._is_guest = True
        return other

    async def aclose(self) -> None:
        """End all calls and free what the client holds. Idempotent."""
        if not self._is_guest:
            await self._handshake.aclose()
        await self._multiplexer.aclose()

    def _stream(self, plan: Callable[[], Awaitable[Plan]], deadline: float | None) -> Stream:
        check_deadline(deadline)
        call = Progress(plan, self._multiplexer, deadline=deadline, max_recoveries=self._max_recoveries)
        return Stream(call)

    def _text(self, tokens: Stream, options: GenerateOptions) -> TextStream:
        given = options.get("stop", ())
        stops = [given] if isinstance(given, str) else [stop for stop in given if isinstance(stop, str)]
        ids = {int(stop[0]) for stop in given if not isinstance(stop, str) and len(stop) == 1}
        ends = options.get("eos_ids")
        return TextStream(tokens, self._handshake, stops, options.get("min_tokens", 0), ids, ends)

    async def _encoded(self, prompt: Prompt, options: Sequence[Prompt]) -> list[Sequence[int]]:
        """Turn a prompt and what may follow it into ids; what is ids already stays as it is."""
        if not any(isinstance(text, str) for text in (prompt, *options)):
            return [prompt, *options]  # type: ignore[list-item]
        tokenizer = await self._handshake.tokenizer()
        ids = [tokenizer.encode(option, special=False) if isinstance(option, str) else option for option in options]
        return [tokenizer.encode(prompt) if isinstance(prompt, str) else prompt, *ids]


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Return the probabilities that log-probabilities, up to a common summand, stand for."""
    best = max(logprobs)
    weights = [math.exp(logprob - best) for logprob in logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]
