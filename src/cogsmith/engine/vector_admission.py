"""What a model that gives vectors is asked: checked, and completed by what it was trained with. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass

from cogsmith.engine.admission import check_ids
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import EmbedRequest, Padding, Pooling
from cogsmith.errors import RequestError

Name = str | int
"""What an output is called: "last", "embedding", or a layer's number."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with nothing left to be decided: rows as the model reads them, and which of their ids are text.

    A text that was padded to others of its request is answered with its padding.
    """

    rows: tuple[tuple[int, ...], ...]
    masks: tuple[tuple[bool, ...], ...]
    names: tuple[Name, ...]
    pooling: Pooling
    normalize: bool
    padding_id: int | None


def admit(request: EmbedRequest, info: EngineInfo, padding_id: int) -> Asked:
    """Return `request` complete. `padding_id` is the model's own.

    Raises RequestError with the value and the fix for one that the model cannot answer.
    """
    _check_texts(request, info)
    pooling = _pooling(request, info)
    normalize = request.normalize
    if normalize is None:
        normalize = pooling != "none" and bool(info.details.get("normalize"))
    names = _names(request, info)
    rows, masks, token = _padded(request, request.padding, info, padding_id)
    vectors = sum(map(len, rows)) if pooling == "none" else len(rows)
    values = len(names) * vectors * int(info.details.get("width", 1))
    if values > request.max_values:
        raise RequestError(
            f"the answer would hold {values} numbers, more than {request.max_values}",
            fix="ask for fewer texts or layers at once, or for pooled vectors",
        )
    return Asked(rows, masks, names, pooling, normalize, token)


def _check_texts(request: EmbedRequest, info: EngineInfo) -> None:
    if not request.inputs:
        raise RequestError("there is no text to encode", fix="give one at least")
    for place, ids in enumerate(request.inputs):
        if not ids:
            raise RequestError(f"inputs[{place}] is empty: it has no token", fix="leave it out")
        check_ids(ids, f"inputs[{place}]", info)
    if long := [(place, len(ids)) for place, ids in enumerate(request.inputs) if len(ids) > info.max_context]:
        told = ", ".join(f"text {place} has {length} tokens" for place, length in long[:3])
        more = f", and {len(long) - 3} more are too long" if len(long) > 3 else ""
        raise RequestError(
            f"{told}{more}; this model takes {info.max_context} at most", fix="shorten them, or say truncate"
        )


def _pooling(request: EmbedRequest, info: EngineInfo) -> Pooling:
    pooling: Pooling | None = request.pooling or info.details.get("pooling")
    if pooling is None:
        raise RequestError(
            "the model's own vectors are made in a way that is not here",
            fix="say pooling: mean, cls, last, max or none",
        )
    return pooling


def _names(request: EmbedRequest, info: EngineInfo) -> tuple[Name, ...]:
    layers: tuple[Name, ...]
    if request.layers == "last":
        layers = ("last",)
    elif request.layers == "all":
        layers = tuple(range(info.layers))
    else:
        layers = tuple(dict.fromkeys(request.layers))
        if bad := [layer for layer in request.layers if not 0 <= layer < info.layers]:
            raise RequestError(
                f"layers names {', '.join(map(str, bad))}, and this model's layers are 0 to {info.layers - 1}",
                fix='give such numbers, "last" or "all"',
            )
    names = (*layers, *(("embedding",) if request.embedding else ()))
    if not names:
        raise RequestError("layers is empty, and nothing else is asked for", fix='leave it out, or give "last"')
    return names


def _padded(
    request: EmbedRequest, padding: Padding | None, info: EngineInfo, padding_id: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[bool, ...], ...], int | None]:
    """Return the rows, which of their ids are text, and what pads them; None where nothing does."""
    if padding is None:
        return request.inputs, tuple((True,) * len(ids) for ids in request.inputs), None
    token = padding_id if padding.token is None else padding.token
    check_ids((token,), "padding_id", info)
    longest = max(map(len, request.inputs))
    rows = tuple(
        (token,) * (longest - len(ids)) + ids if padding.side == "left" else ids + (token,) * (longest - len(ids))
        for ids in request.inputs
    )
    return rows, tuple(tuple(one != token for one in row) for row in rows), token
