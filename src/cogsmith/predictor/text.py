"""A prediction for a person: a prompt or messages in, text out while it comes.

A layer over the token engine, never beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cogsmith.detokenize import Decode, StopStrings, TextDecoder
from cogsmith.engine.base import Engine, EngineInfo, Handle
from cogsmith.engine.request import ComputedEvent, EncodedEvent, GenerateRequest, TokenEvent
from cogsmith.errors import RequestError
from cogsmith.manifest import Prompt
from cogsmith.predictor.computed import check_files, files_of, num_cached
from cogsmith.predictor.inputs import TextInputs
from cogsmith.predictor.mailbox import Mailbox, StreamEvent
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.prompting import Encoded, encode

if TYPE_CHECKING:
    from cogsmith.engine.images import Pictures


def stream_text(
    inputs: TextInputs,
    engine: Engine,
    tokenizer: Any,
    mailbox: Mailbox,
    meter: Meter,
    packaged: Prompt | None = None,
    pictures: Pictures | None = None,
    model: str = "",
) -> Iterator[str]:
    """Yield the continuation's text piece by piece, whole characters only, and nothing of a stop text.

    For `prompts` it is one piece, the JSON array of their texts; with `stream="cumulative"` each is a line of JSON,
    `{"text": all so far, "end_of_content": whether it is all}`. Where files are asked for it is one piece too, an
    object for each prompt with its text and its files; a cache is marked as `model`'s. Every prompt is of all
    `pictures`. Raises RequestError for what cannot be answered; Cancelled and DeadlinePassed as the mailbox says.
    """
    encoded = encode(inputs, tokenizer, packaged, pictures)
    prompts = [_fitted(one, inputs, engine.info, packaged, pictures) for one in encoded]
    requests = [_request(one, inputs, engine.info) for one in prompts]
    decode = decoder_of(tokenizer, skip_special_tokens=inputs.skip_special_tokens)
    ends = [request.ends(engine.info.eos_ids) for request in requests]
    try:
        if inputs.warmup:
            for _ in _run(requests, _writers(prompts, ends, decode, inputs), engine, mailbox, meter):
                pass
        writers = _writers(prompts, ends, decode, inputs)
        pieces = _run(requests, writers, engine, mailbox, meter)
        if inputs.gives_files:
            answers = [
                {"text": text, **_with_files(request, writer.tokens, inputs, engine, mailbox, model)}
                for text, request, writer in zip(_texts(pieces, len(prompts)), requests, writers, strict=True)
            ]
            yield json.dumps(answers if inputs.prompts else answers[0], ensure_ascii=False)
        elif inputs.prompts:
            yield json.dumps(_texts(pieces, len(prompts)), ensure_ascii=False)
        elif inputs.stream == "cumulative":
            yield from _cumulative(piece for _, piece in pieces)
        else:
            yield from (piece for _, piece in pieces)
    finally:
        meter.report()


def _run(
    requests: Sequence[GenerateRequest],
    writers: Sequence[_Writer],
    engine: Engine,
    mailbox: Mailbox,
    meter: Meter,
) -> Iterator[tuple[int, str]]:
    """Run all prompts side by side; yield pieces of text with the place of their prompt."""
    handles: dict[int, Handle] = {}
    # Events of an earlier run may still lie in the mailbox.
    first = mailbox.next_streams(len(requests))
    try:
        for place, request in enumerate(requests):
            handles[place] = engine.submit(request, mailbox.sink(first + place), client=mailbox)
            meter.read(len(request.prompt), num_cached(request))
        yield from ((place, piece) for place, writer in enumerate(writers) if (piece := writer.opening()))
        while handles:
            for stream, events in mailbox.take():
                place = stream - first
                if place not in handles:
                    continue
                if piece := "".join(writers[place].push(event, meter) for event in events):
                    yield place, piece
                if writers[place].has_ended:
                    handles.pop(place).cancel()
    finally:
        for handle in handles.values():
            handle.cancel()


class _Writer:
    """Turns one stream's events into text that can be shown."""

    def __init__(self, prompt: Encoded, ends: frozenset[int], decode: Decode, inputs: TextInputs) -> None:
        self._opening = decode(list(prompt.ids)) if inputs.return_prompt else ""
        self._decoder = TextDecoder(decode, prompt.ids)
        self._stops = StopStrings(prompt.stop)
        # An end token has no text for a reader, even where the tokenizer does not call it special.
        self._hidden = ends if inputs.skip_special_tokens else frozenset()
        self._min_tokens = inputs.min_new_tokens
        self.tokens: list[int] = []
        self.has_ended = False

    def opening(self) -> str:
        """What stands before the continuation."""
        return self._opening

    def push(self, event: StreamEvent, meter: Meter) -> str:
        """Take an event; return the text that may be shown now. Raises RequestError where the stream failed."""
        if self.has_ended or isinstance(event, EncodedEvent | ComputedEvent):
            return ""
        if not isinstance(event, TokenEvent):
            raise RequestError(event.message)
        meter.wrote(1)
        self.tokens.append(event.token)
        # A constraint may end with a token that is none of these.
        is_hidden = event.finish_reason == "stop" and event.token in self._hidden
        text = self._shown("" if is_hidden else self._decoder.push(event.token))
        if event.finish_reason is not None:
            text += self._shown(self._decoder.flush()) + self._stops.flush()
        self.has_ended = event.finish_reason is not None or self._stops.found is not None
        return text

    def _shown(self, text: str) -> str:
        return self._stops.push(text, armed=len(self.tokens) > self._min_tokens)


def _writers(
    prompts: Sequence[Encoded], ends: Sequence[frozenset[int]], decode: Decode, inputs: TextInputs
) -> list[_Writer]:
    return [_Writer(*pair, decode, inputs) for pair in zip(prompts, ends, strict=True)]


def _with_files(
    request: GenerateRequest, answer: Sequence[int], inputs: TextInputs, engine: Engine, mailbox: Mailbox, model: str
) -> dict[str, Any]:
    """The ids of a text, and what was asked for beside it."""
    files = files_of(
        request, answer, inputs.return_logits, engine, mailbox, model=model, keeps_cache=inputs.return_cache
    )
    return {
        "prompt_ids": list(request.prompt),
        "token_ids": list(answer),
        "cached_tokens": num_cached(request),
        **files,
    }


def decoder_of(tokenizer: Any, *, skip_special_tokens: bool) -> Decode:
    """The tokenizer's `decode`, text as it is."""

    def decode(ids: list[int]) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
        return text

    return decode


def plain_decode(tokenizer: Any) -> Decode:
    """The tokenizer's `decode` without special tokens, text as it is."""
    return decoder_of(tokenizer, skip_special_tokens=True)


def _texts(pieces: Iterator[tuple[int, str]], count: int) -> list[str]:
    """Return the whole texts of `count` prompts, once they are whole."""
    texts = [""] * count
    for place, piece in pieces:
        texts[place] += piece
    return texts


def _cumulative(pieces: Iterator[str]) -> Iterator[str]:
    text = ""
    for piece in pieces:
        text += piece
        yield json.dumps({"text": text, "end_of_content": False}, ensure_ascii=False) + "\n"
    yield json.dumps({"text": text, "end_of_content": True}, ensure_ascii=False) + "\n"


def _fitted(
    prompt: Encoded, inputs: TextInputs, info: EngineInfo, packaged: Prompt | None, pictures: Pictures | None
) -> Encoded:
    """Cut the beginning of a prompt that leaves too little room for the answer, where that is wanted; no image."""
    wanted = inputs.truncate_prompt
    if wanted is None:
        wanted = packaged is not None and packaged.truncate
    room = info.max_context - max(1, inputs.max_new_tokens)
    if not wanted or len(prompt.ids) <= room:
        return prompt
    if room < 1:
        raise RequestError(
            f"max_new_tokens is {inputs.max_new_tokens}, and the context holds {info.max_context} tokens in all",
            fix=f"ask for fewer than {info.max_context}",
        )
    if pictures is None or prompt.media is None:
        return replace(prompt, ids=prompt.ids[-room:])
    ids, media = pictures.shortened(prompt.ids, prompt.media, room)
    return replace(prompt, ids=ids, media=media)


def _request(prompt: Encoded, inputs: TextInputs, info: EngineInfo) -> GenerateRequest:
    ends = None if inputs.eos_token_id is None else frozenset({inputs.eos_token_id})
    # A constraint says itself where its text ends.
    if prompt.end_ids and inputs.constraint is None:
        ends = (info.eos_ids if ends is None else ends) | prompt.end_ids
    request = GenerateRequest(
        prompt.ids,
        inputs.max_new_tokens or max(1, info.max_context - len(prompt.ids)),
        inputs.sampling,
        bias=inputs.bias(),
        top_logprobs=0,
        min_tokens=inputs.min_new_tokens,
        constraint=inputs.constraint,
        eos_ids=ends,
        use_cache=inputs.use_cache,
        media=prompt.media,
        cache=inputs.cache,
    )
    check_files(request, inputs.return_logits, info, keeps_cache=inputs.return_cache)
    return request
