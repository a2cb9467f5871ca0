"""Texts into vectors: the calls, and what they come to."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cogsmith.client.multiplexer import Multiplexer
from cogsmith.client.server import Server
from cogsmith.errors import (
    DeadlineExceeded,
    MissingExtra,
    OperationFailed,
    ProtocolError,
    StreamBroken,
    UnsupportedByServer,
)
from cogsmith.lmtp import Embed, Embedded, End
from cogsmith.manifest import CAUSAL_LM


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What `embed` gives, in the order of the texts; of the outputs, those are there that were asked for.

    `vectors` holds a list of numbers for each text; `last_hidden_state`, which is there instead where nothing pools,
    one for each of its tokens. `layers`, by number, and `embedding` are of the one kind or the other. `token_ids` are
    what the model read.
    """

    token_ids: list[list[int]]
    pooling: str
    normalize: bool
    vectors: list[Any] | None = None
    last_hidden_state: list[Any] | None = None
    layers: Mapping[int, list[Any]] | None = None
    embedding: list[Any] | None = None
    padding_id: int | None = None

    @property
    def outputs(self) -> Mapping[str, list[Any]]:
        """All that is there by its name, layers as `layer_0` and so on."""
        layers = {f"layer_{number}": values for number, values in (self.layers or {}).items()}
        named = {"vectors": self.vectors, "last_hidden_state": self.last_hidden_state, "embedding": self.embedding}
        return {**{name: values for name, values in named.items() if values is not None}, **layers}

    def numpy(self) -> dict[str, Any]:
        """Return the outputs as float32 arrays, [texts, width] or [texts, tokens, width], with ids and their mask.

        Raises MissingExtra without numpy.
        """
        arrays: dict[str, Any] = _arrays().arrays_of(self.outputs, self.token_ids, self.padding_id)
        return arrays

    def npz(self) -> bytes:
        """Return the same as the bytes of an npz file, which `numpy.load` reads. Raises MissingExtra without numpy."""
        content: bytes = _arrays().npz_bytes(self.numpy())
        return content


def _arrays() -> Any:
    try:
        from cogsmith.predictor import arrays
    except ImportError:
        raise MissingExtra("engine", "Making arrays") from None
    return arrays


def require_vectors(server: Server) -> None:
    """Raises UnsupportedByServer where the server's model gives no vectors."""
    if not server.can("embed"):
        task = server.facts.get("task", CAUSAL_LM)
        raise UnsupportedByServer(f"the model gives no vectors: its task is {task}", fix="name an encoder")


async def embed(
    requests: Sequence[Embed], multiplexer: Multiplexer, deadline: float | None, attempts: int
) -> Embeddings:
    """Send the operations, each again where its connection breaks, so many times in all; put their answers together.

    Raises DeadlineExceeded, OperationFailed, StreamBroken, and what a transport raises; then what still runs is ended.
    """
    milliseconds = None if deadline is None else max(1, int(1000 * deadline))
    keyed = [
        msgspec.structs.replace(request, deadline_ms=milliseconds, cancel_key=secrets.token_urlsafe(12))
        for request in requests
    ]
    calls = [asyncio.ensure_future(_ask(request, multiplexer, attempts)) for request in keyed]
    try:
        async with asyncio.timeout(deadline):
            return _joined(await asyncio.gather(*calls))
    except TimeoutError:
        raise _late(deadline) from None
    finally:
        for call in calls:
            call.cancel()


async def _ask(request: Embed, multiplexer: Multiplexer, attempts: int) -> Embedded:
    for left in reversed(range(attempts)):
        try:
            reply = await multiplexer.ask(request)
        except StreamBroken:
            if not left:
                raise
            continue
        match reply:
            case Embedded():
                return reply
            case End(finish_reason="deadline"):
                raise _late(None)
            case End(finish_reason=reason, error=error):
                raise OperationFailed(error or f"the server ended this: {reason}")
        raise ProtocolError(f"the server answered EMBED with a {type(reply).__name__}")
    raise StreamBroken("the call was not tried")


def _joined(answers: Sequence[Embedded]) -> Embeddings:
    first = answers[0]

    def of_all(name: str) -> list[Any] | None:
        values = [getattr(answer, name) for answer in answers]
        return None if values[0] is None else [one for value in values for one in value]

    layers = {
        number: [one for answer in answers for one in (answer.layers or {})[number]] for number in first.layers or {}
    }
    return Embeddings(
        token_ids=of_all("token_ids") or [],
        pooling=first.pooling,
        normalize=first.normalize,
        vectors=of_all("vectors"),
        last_hidden_state=of_all("last_hidden_state"),
        layers=layers or None,
        embedding=of_all("embedding"),
        padding_id=first.padding_id,
    )


def _late(seconds: float | None) -> DeadlineExceeded:
    had = "the server's own time limit has passed" if seconds is None else f"the call has had its {seconds:g} seconds"
    return DeadlineExceeded(had, fix="give a longer deadline, or fewer texts")
