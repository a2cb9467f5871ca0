"""The class that the `predict.py` of a model that gives vectors derives its predictor from.

A prediction for a person is an EMBED with the inputs' names for its fields, answered in JSON or as an npz file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from cogsmith import lmtp
from cogsmith.engine.base import Engine
from cogsmith.engine.request import EncodedEvent
from cogsmith.errors import RequestError
from cogsmith.predictor.arrays import arrays_of, npz_uri
from cogsmith.predictor.mailbox import Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.requests import num_read
from cogsmith.predictor.served import ServedModel, until_cancelled
from cogsmith.predictor.vectors import embed_request, embedded

Output = Literal["json", "npz"]

_NOT_SHOWN = ("stream_id",)


class Encoder(ServedModel):
    """Serves an encoder, or a decoder without its head."""

    def stream(self, *, ops_batch_json: str = "", output: Output = "json", **inputs: Any) -> Iterator[str]:
        """Answer one prediction: LMTP lines for `ops_batch_json`, else vectors by `asked`, as one piece of JSON.

        Returns a generator at once, which Cog then reads on a thread of its own. Raises RequestError where inputs
        contradict each other; faults of an LMTP operation come in-band.
        """
        operation = asked(**inputs)
        if (operation is None) == (not ops_batch_json):
            said = "texts and ops_batch_json are given together" if ops_batch_json else "no text is given"
            raise RequestError(said, fix="send texts, text or ops_batch_json")
        mailbox, meter = self._begin()
        if operation is None:
            return until_cancelled(self._lmtp(ops_batch_json, mailbox, meter))
        if operation.pooling is None and not self._engine.info.details["pooling_is_stated"]:
            # Nobody has said how this model's vectors are made: its hidden states are what there is.
            operation = msgspec.structs.replace(operation, pooling="none")
        return until_cancelled(_answer(operation, output, self._engine, self._tokenizer, mailbox, meter))


def asked(
    *,
    texts: list[str],
    text: str = "",
    layers: str | Sequence[int] = "last",
    padding_side: str = "",
    pooling: str = "",
    **others: Any,
) -> lmtp.Embed | None:
    """Return what the inputs of `run` ask for; None without a text.

    `layers` is "last", "all" or numbers, such as [0, 5] or "0,5"; empty texts stand for what is not said. Raises
    RequestError for what has no meaning.
    """
    if texts and text:
        raise RequestError("texts and text are given together", fix="send one of them")
    if not (texts or text):
        return None
    given = {"padding_side": padding_side or None, "pooling": pooling or None, **others}
    return lmtp.Embed(texts=tuple(texts or [text]), layers=_layers(layers), stream_id=0, **given)


def _layers(asked: str | Sequence[int]) -> Any:
    text = asked.strip().removeprefix("[").removesuffix("]").strip() if isinstance(asked, str) else ""
    if text in ("last", "all"):
        return text
    try:
        return tuple(int(number) for number in (text.split(",") if isinstance(asked, str) else asked))
    except (ValueError, TypeError):
        raise RequestError(f"layers is {asked!r}", fix="send last, all, or numbers such as [0, 5]") from None


def _answer(
    operation: lmtp.Embed, output: Output, engine: Engine, tokenizer: Any, mailbox: Mailbox, meter: Meter
) -> Iterator[str]:
    """Yield the answer. Raises RequestError for what cannot be answered; Cancelled and DeadlinePassed as the mailbox.

    With `output` "npz" it is `{"npz": a data URI, "shapes": …}`.
    """
    request = embed_request(operation, tokenizer, engine.info)
    stream = mailbox.next_streams(1)
    handle = engine.submit(request, mailbox.sink(stream), client=mailbox)
    try:
        meter.read(num_read(request))
        event = mailbox.take_only(stream, EncodedEvent)
        yield json.dumps(_as_npz(event) if output == "npz" else _as_json(event))
    finally:
        handle.cancel()
        meter.report()


def _as_json(event: EncodedEvent) -> Mapping[str, Any]:
    answer: dict[str, Any] = msgspec.to_builtins(embedded(event, stream_id=0))
    shown = {name: value for name, value in answer.items() if name not in _NOT_SHOWN}
    return {**shown, "shapes": {_title(name, event): _shape(values) for name, values in event.outputs.items()}}


def _shape(values: tuple[Any, ...]) -> list[Any]:
    """Return the shape of all texts' answers together; where these differ, that of each."""
    shapes = [list(one.shape) for one in values]
    return [len(shapes), *shapes[0]] if all(shape == shapes[0] for shape in shapes) else shapes


def _as_npz(event: EncodedEvent) -> Mapping[str, Any]:
    outputs = {_title(name, event): values for name, values in event.outputs.items()}
    arrays = arrays_of(outputs, event.inputs, event.padding_id)
    return {"npz": npz_uri(arrays), "shapes": {name: list(array.shape) for name, array in arrays.items()}}


def _title(name: str | int, event: EncodedEvent) -> str:
    if isinstance(name, int):
        return f"layer_{name}"
    if name == "last":
        return "last_hidden_state" if event.pooling == "none" else "vectors"
    return name
