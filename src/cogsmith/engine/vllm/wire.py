"""A request on its way from this process to the one that samples, in `SamplingParams.extra_args`.

vLLM's own `logit_bias` is cut to ±100 and, on GPUs, to 1024 entries; a mask of LMQL's has as many as the vocabulary.
Here a bias that has one value for all its ids, as such a mask, is one bit per id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import msgspec
import numpy as np

from cogsmith.engine.dense import spread
from cogsmith.engine.request import GenerateRequest, Request, ScoreRequest

KEY = "cogsmith"
"""The place in `extra_args`, and that of the model's facts in vLLM's `additional_config`."""


class _Bias(msgspec.Struct, frozen=True):
    """`values` (float32) of the ids whose bits are set in `ids`, lowest first; one value may stand for all."""

    ids: bytes
    values: bytes


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much of the prompt is the continuation's beginning, and how many numbers the stream has drawn for it."""

    num_generated: int = 0
    num_drawn: int = 0


NO_PROGRESS = Progress()


class _Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    progress: Progress = NO_PROGRESS
    generate: GenerateRequest | None = None
    score: ScoreRequest | None = None
    bias: _Bias | None = None


def encode(request: Request, head_size: int, progress: Progress = NO_PROGRESS) -> bytes:
    """Pack `request` without its prompt, which vLLM carries."""
    if isinstance(request, ScoreRequest):
        return msgspec.msgpack.encode(_Sent(score=replace(request, prompt=())))
    bias = _packed(request.bias, head_size) if request.bias else None
    return msgspec.msgpack.encode(_Sent(progress, replace(request, prompt=(), bias={}), bias=bias))


def decode(sent: bytes) -> tuple[Request, Progress]:
    """Return the request, without prompt; its bias has float32 values and no ids outside the head."""
    parts = msgspec.msgpack.decode(sent, type=_Sent)
    if parts.score is not None:
        return parts.score, parts.progress
    if parts.generate is None:
        raise ValueError("no request was sent")
    bias = {} if parts.bias is None else _SparseBias(parts.bias)
    return replace(parts.generate, bias=bias), parts.progress


class _SparseBias(Mapping[int, float]):
    """A bias read from its packed form, without a dictionary of all its entries."""

    def __init__(self, bias: _Bias) -> None:
        self._ids = np.unpackbits(np.frombuffer(bias.ids, np.uint8)).nonzero()[0]
        self._values = np.broadcast_to(np.frombuffer(bias.values, np.float32), self._ids.shape)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids.tolist())

    def __getitem__(self, token: int) -> float:
        place = int(np.searchsorted(self._ids, token))
        if place == len(self._ids) or self._ids[place] != token:
            raise KeyError(token)
        return float(self._values[place])

    def values(self) -> list[float]:  # type: ignore[override] # in the order of the ids, which is all that is read
        """The values in the order of the ids."""
        found: list[float] = self._values.tolist()
        return found


def _packed(bias: Mapping[int, float], head_size: int) -> _Bias:
    dense = spread(bias, head_size)
    values = dense[dense != 0]
    if values.size and (values == values[0]).all():
        values = values[:1]
    return _Bias(np.packbits(dense != 0).tobytes(), values.tobytes())
