"""Vectors and hidden states as numpy's arrays, and as an npz file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from cogsmith import data_uris


def arrays_of(
    outputs: Mapping[str, Sequence[Any]], token_ids: Sequence[Sequence[int]], padding_id: int | None
) -> dict[str, Any]:
    """Return each output as one float32 array: [texts, width], or with shorter texts filled up [texts, tokens, width].

    `token_ids` come too, filled up with zeros, and an `attention_mask`, which says what of them is text: neither filled
    up, nor `padding_id`, which is None where nothing was padded.
    """
    stacked = {name: _stacked([numpy.asarray(one, numpy.float32) for one in given]) for name, given in outputs.items()}
    rows = [numpy.asarray(row, numpy.int64) for row in token_ids]
    text = [numpy.asarray([one != padding_id for one in row], numpy.int64) for row in token_ids]
    return {**stacked, "token_ids": _stacked(rows), "attention_mask": _stacked(text)}


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Return the bytes of an npz file, which `numpy.load` reads."""
    file = io.BytesIO()
    numpy.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def npz_uri(arrays: Mapping[str, Any]) -> str:
    """Return the npz file of `arrays` as a data URI."""
    return data_uris.encode(npz_bytes(arrays), "application/zip")


def _stacked(values: Sequence[Any]) -> Any:
    """Return arrays as one, shorter ones filled up with zeros along their first axis."""
    longest = max(one.shape[0] for one in values)
    return numpy.stack([numpy.pad(one, [(0, longest - one.shape[0]), *[(0, 0)] * (one.ndim - 1)]) for one in values])
