"""Texts into vectors: what an EMBED asks of the engine, and the engine's answer in LMTP's words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cogsmith import lmtp
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import MOST_VALUES, EmbedRequest, EncodedEvent, FailedEvent, Padding
from cogsmith.errors import RequestError
from cogsmith.predictor.mailbox import EndedEvent, StreamEvent

MOST_IN_A_LINE = 2**19
"""Numbers in one answer of LMTP: with nine digits each, and all ids, they stay within the longest line that is read."""


def embed_request(
    operation: lmtp.Embed, tokenizer: Any | None, info: EngineInfo, *, max_values: int = MOST_VALUES
) -> EmbedRequest:
    """Return what an operation asks of the engine. Raises RequestError for texts, where there is no tokenizer."""
    longest = min(info.details.get("trained_length") or info.max_context, info.max_context)
    limit = longest if operation.truncate else None
    if operation.inputs is not None:
        inputs = tuple(ids[:limit] for ids in operation.inputs)
    else:
        lowercase = bool(info.details.get("lowercase"))
        texts = [text.lower() if lowercase else text for text in operation.texts or ()]
        inputs = tuple(encoded(text, tokenizer, limit) for text in texts)
    padding = None
    if operation.padding_side is not None or operation.padding_id is not None:
        padding = Padding(operation.padding_side or "right", operation.padding_id)
    return EmbedRequest(
        inputs,
        operation.layers,
        operation.embedding,
        operation.pooling,
        operation.normalize,
        padding,
        max_values,
    )


def encoded(text: str, tokenizer: Any | None, limit: int | None = None) -> tuple[int, ...]:
    """Return a text's ids with the special tokens of a whole text, cut to `limit` ids: before those that end it.

    That is where transformers cuts too. Its own way sets the tokenizer anew, which other threads are using. Raises
    RequestError where there is no tokenizer.
    """
    if tokenizer is None:
        raise RequestError("this model came without a tokenizer, so it takes no text", fix="send inputs, token ids")
    found = tokenizer(text, return_special_tokens_mask=True, verbose=False)
    ids, is_special = found["input_ids"], found["special_tokens_mask"]
    if limit is None or len(ids) <= limit:
        return tuple(ids)
    num_last = next((count for count, special in enumerate(reversed(is_special)) if not special), 0)
    return (*ids[: max(0, limit - num_last)], *ids[len(ids) - min(num_last, limit) :])


@dataclass(slots=True)
class VectorStream:
    """A stream of LMTP 1.1 that is answered at once."""

    stream_id: int
    ended: bool = False

    def receive(self, event: StreamEvent) -> Iterator[lmtp.AnyReply]:
        """Yield the vectors, or an END for what ends the stream without them."""
        self.ended = True
        match event:
            case EncodedEvent():
                yield embedded(event, self.stream_id)
            case FailedEvent(message):
                yield lmtp.End(stream_id=self.stream_id, finish_reason="error", error=message)
            case EndedEvent(reason):
                yield lmtp.End(stream_id=self.stream_id, finish_reason=reason)


def embedded(event: EncodedEvent, stream_id: int) -> lmtp.Embedded:
    """Return the engine's answer as a message."""
    numbers = {name: [_numbers(one) for one in values] for name, values in event.outputs.items()}
    last, layers = numbers.get("last"), {name: one for name, one in numbers.items() if isinstance(name, int)}
    return lmtp.Embedded(
        stream_id=stream_id,
        token_ids=[list(ids) for ids in event.inputs],
        vectors=None if event.pooling == "none" else last,
        last_hidden_state=last if event.pooling == "none" else None,
        layers=layers or None,
        embedding=numbers.get("embedding"),
        pooling=event.pooling,
        normalize=event.normalize,
        padding_id=event.padding_id,
    )


def _numbers(array: Any) -> list[Any]:
    """Return a float32 array as lists of numbers, in no more digits than tell any two of its kind apart."""
    flat = [float(f"{value:.9g}") for value in array.ravel().tolist()]
    if array.ndim == 1:
        return flat
    width = array.shape[-1]
    return [flat[start : start + width] for start in range(0, len(flat), width)]
