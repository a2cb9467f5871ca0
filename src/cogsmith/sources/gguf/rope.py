"""Rotary position scaling that a GGUF states and the loader does not read.

Without it a converted model agrees with itself and still goes wrong beyond its first thousands of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cogsmith.errors import ConversionError
from cogsmith.sources.gguf import USE_ORIGINAL
from cogsmith.sources.gguf.header import Header

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor of Llama 3's scaling: one divisor for each rotary frequency."""

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What all published Llama 3 models share; they differ in `factor` only."""


def rope_scaling(header: Header) -> dict[str, Any]:
    """Return what to add to a config's `rope_parameters`; empty where positions are not scaled.

    Raises ConversionError for a scaling that cannot be said in those words.
    """
    prefix = f"{header.architecture}.rope.scaling."
    kind = header.metadata.get(prefix + "type", "none")
    factors = _read_factors(header)
    if kind == "linear" and not factors:
        return {"rope_type": "linear", "factor": header.metadata[prefix + "factor"]}
    if kind != "none":
        raise ConversionError(
            f"{header.path.name} scales positions by {kind!r} ({prefix}type), which the conversion does not support",
            fix=USE_ORIGINAL,
        )
    if all(factor == 1 for factor in factors):
        return {}
    return _llama3(header, factors)


def _read_factors(header: Header) -> tuple[float, ...]:
    import numpy

    for tensor in header.tensors:
        if tensor.name == ROPE_FACTORS:
            start = header.data_start + tensor.offset
            values = numpy.fromfile(header.path, dtype="<f4", count=tensor.elements, offset=start)
            return tuple(float(value) for value in values)
    return ()


def _llama3(header: Header, factors: Sequence[float]) -> dict[str, Any]:
    scaling = {"rope_type": "llama3", "factor": max(factors), **_LLAMA3}
    theta = header.metadata.get(f"{header.architecture}.rope.freq_base", 10000.0)
    expected = llama3_factors(theta, len(factors), max(factors))
    if not all(math.isclose(have, want, rel_tol=1e-4) for have, want in zip(factors, expected, strict=True)):
        raise ConversionError(
            f"{header.path.name} scales positions by factors ({ROPE_FACTORS}) that are not Llama 3's",
            fix=USE_ORIGINAL,
        )
    return scaling


def llama3_factors(theta: float, count: int, factor: float) -> list[float]:
    """Return Llama 3's divisors for `count` rotary frequencies of base `theta`.

    Long waves are divided by `factor`, short ones left alone, with a ramp between ("The Llama 3 Herd of
    Models", section 3.4; the formula is Meta's `apply_scaling`).
    """
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    context = _LLAMA3["original_max_position_embeddings"]
    divisors = []
    for index in range(count):
        turns = context / (2 * math.pi * theta ** (index / count))
        ramp = min(max((turns - low) / (high - low), 0.0), 1.0)
        divisors.append(1 / ((1 - ramp) / factor + ramp))
    return divisors
