"""Whether an ONNX file computes what the model does: both run on the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from cogsmith.errors import ConversionError
from cogsmith.export.graph import INPUTS, OUTPUT, Sample

SEED = 42
TOLERANCE = 1e-2
"""Relative and absolute, as `torch.testing.assert_close` understands them."""


def samples(batch: int, length: int, vocabulary: int, *, dynamic: bool) -> list[Sample]:
    """Return what is run: random ids below `vocabulary`, nothing masked; `dynamic` adds a smaller, left-padded one.

    Where the shape is dynamic the first has two rows at least: torch takes a size of one for a constant.
    """
    generator = torch.Generator().manual_seed(SEED)
    whole = _random(max(batch, 2) if dynamic else batch, length, vocabulary, generator)
    if not dynamic:
        return [whole]
    other = _random(batch + 1 if batch > 1 else 1, max(1, length // 2), vocabulary, generator)
    # The last row's first half is padding; a single token is never.
    other.attention_mask[-1, : other.attention_mask.shape[1] // 2] = 0
    return [whole, other]


def largest_difference(file: Path, samples: Sequence[Sample], expected: Sequence[torch.Tensor]) -> float:
    """Run `file` in onnxruntime; return the largest absolute difference of its logits from the `expected` ones.

    Raises ConversionError, with the difference, where it is more than rounding, and for a file that is no valid model.
    """
    session = _session(file)
    worst = 0.0
    for sample, wanted in zip(samples, expected, strict=True):
        (given,) = session.run([OUTPUT], {name: getattr(sample, name).numpy() for name in INPUTS})
        worst = max(worst, _compared(torch.from_numpy(given), wanted))
    return worst


def _random(rows: int, tokens: int, vocabulary: int, generator: torch.Generator) -> Sample:
    ids = torch.randint(0, vocabulary, (rows, tokens), generator=generator, dtype=torch.int64)
    return Sample(ids, torch.ones_like(ids))


def _session(file: Path) -> Any:
    try:
        onnx.checker.check_model(str(file))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base below Exception
        raise ConversionError(f"the exported graph cannot be run: {error}") from error


def _compared(given: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference, row by row: all of them at once would be a third copy of the logits."""
    if given.shape != wanted.shape:
        raise ConversionError(f"the exported graph gives {list(given.shape)} logits, the model {list(wanted.shape)}")
    worst, wrong = 0.0, 0
    for ours, theirs in zip(given, wanted, strict=True):
        apart = (ours - theirs).abs()
        # Not a number is never close.
        wrong += int((~(apart <= TOLERANCE + TOLERANCE * theirs.abs())).sum())
        worst = max(worst, float(apart.max().nan_to_num(torch.inf)))
    if wrong:
        raise ConversionError(
            f"the exported graph is not the model: the largest difference is {worst:.3g}, and {wrong} of "
            f"{wanted.numel()} logits are further off than {TOLERANCE:g}",
            fix="nothing was written; try another --opset, and report the architecture",
        )
    return worst
