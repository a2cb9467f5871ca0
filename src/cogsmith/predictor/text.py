"""A prediction for a person: a prompt or messages in, text out while it comes.

A layer over the token engine, never beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from cogsmith.detokenize import Decode, TextDecoder
from cogsmith.engine.base import Engine
from cogsmith.engine.request import GenerateRequest, Sampling, TokenEvent
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
    handle = engine.submit(
        GenerateRequest(prompt, inputs.max_tokens, inputs.sampling, top_logprobs=0), mailbox.sink(0), client=mailbox
    )
    meter.read(len(prompt))
    decoder = TextDecoder(plain_decode(tokenizer), prompt)
    try:
        while True:
            for _, events in mailbox.take():
                for event in events:
                    if not isinstance(event, TokenEvent):
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


def plain_decode(tokenizer: Any) -> Decode:
    """The tokenizer's `decode` without special tokens, text as it is."""

    def decode(ids: list[int]) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    return decode
