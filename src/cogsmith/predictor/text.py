"""A prediction for a person: a prompt or messages in, text out while it comes.

A layer over the token engine, never beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from cogsmith.engine.base import Engine
from cogsmith.engine.request import FailedEvent, GenerateRequest, Sampling
from cogsmith.errors import RequestError
from cogsmith.predictor.mailbox import Mailbox
from cogsmith.predictor.meter import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInputs:
    """The inputs of a text prediction: `prompt`, or chat `messages` that go through the model's template."""

    prompt: str = ""
    messages: Sequence[dict[str, Any]] = ()
    max_tokens: int = 128
    sampling: Sampling = field(default_factory=Sampling)


def stream_text(inputs: TextInputs, engine: Engine, tokenizer: Any, mailbox: Mailbox, meter: Meter) -> Iterator[str]:
    """Yield the continuation's text piece by piece, whole characters only, without special tokens.

    Raises RequestError for what cannot be answered; Cancelled and DeadlinePassed as the mailbox says.
    """
    prompt = encode(inputs, tokenizer)
    handle = engine.submit(GenerateRequest(prompt, inputs.max_tokens, inputs.sampling, top_logprobs=0), mailbox.sink(0))
    meter.read(len(prompt))
    decoder = TextDecoder(tokenizer)
    try:
        while True:
            for _, events in mailbox.take():
                for event in events:
                    if isinstance(event, FailedEvent):
                        raise RequestError(event.message)
                    meter.wrote(1)
                    text = "" if event.finish_reason == "stop" else decoder.push(event.token)
                    if event.finish_reason is not None:
                        text += decoder.flush()
                    if text:
                        yield text
                    if event.finish_reason is not None:
                        return
    finally:
        handle.cancel()
        meter.report()


def encode(inputs: TextInputs, tokenizer: Any) -> tuple[int, ...]:
    """Turn the inputs into token ids. Raises RequestError where neither or both are given, or no template fits."""
    if tokenizer is None:
        raise RequestError("this model came without a tokenizer, so it takes no text", fix="send ops_batch_json")
    if bool(inputs.prompt) == bool(inputs.messages):
        given = "both prompt and messages are" if inputs.prompt else "neither prompt nor messages nor ops_batch_json is"
        raise RequestError(f"{given} given", fix="send exactly one of them")
    if inputs.prompt:
        return tuple(tokenizer.encode(inputs.prompt))
    return _encode_messages(inputs.messages, tokenizer)


def _encode_messages(messages: Sequence[dict[str, Any]], tokenizer: Any) -> tuple[int, ...]:
    if not tokenizer.chat_template:
        raise RequestError("this model has no chat template", fix="send prompt instead of messages")
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
        raise RequestError(f"the model's chat template refuses these messages: {error}") from error
    # The template has already written the special tokens that the text needs.
    return tuple(tokenizer.encode(text, add_special_tokens=False))


class TextDecoder:
    """Turns a stream of ids into a stream of text, holding back half a character until the rest has come.

    Only a short tail is decoded again for each token: what was already given out, as context for the tokenizer's
    spacing, and what is still held back.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """Add a token; return the text that is now complete, possibly none."""
        self._pending.append(token)
        text = self._pending_text()
        # A byte-level token may end inside a character; its decoded form then ends with the replacement character.
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else self._give(text)

    def flush(self) -> str:
        """Return what was held back, whole or not."""
        return self._give(self._pending_text())

    def _pending_text(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _give(self, text: str) -> str:
        self._context, self._pending = self._pending or self._context, []
        return text

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
