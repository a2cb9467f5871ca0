"""What an export takes of this machine, asked for before it starts: killed half-way, it would have told nobody why."""

from __future__ import annotations

import shutil
from pathlib import Path

from cogsmith.engine.description import Description
from cogsmith.engine.free_memory import free_memory
from cogsmith.errors import UserError

WEIGHT_COPIES = 3
"""The model, the runtime's weights, and these once more as its kernels want them. Measured: 2.3 to 2.5."""
_LOGIT_COPIES = 2
_SCORE_COPIES = 3
_BYTES = 4
_GRAPH_BYTES = 64 * 2**20
"""More than any graph without its weights."""


def memory_needed(description: Description, batch: int, length: int, *, verify: bool) -> int:
    """Return the bytes that an export holds at its highest.

    3 copies of the weights in float32; where the graph is run, two of the logits (batch x length x vocabulary) and
    three of one layer's attention (batch x heads x length x length).
    """
    weights = WEIGHT_COPIES * _BYTES * description.n_params
    if not verify:
        return weights
    tokens = batch * length
    logits = tokens * description.vocab_size * _BYTES
    return weights + _LOGIT_COPIES * logits + _SCORE_COPIES * tokens * length * description.heads * _BYTES


def require(description: Description, batch: int, length: int, stage: Path, *, verify: bool) -> None:
    """Raise UserError, with the figures, where memory or the disk of `stage` would not do."""
    weights = _BYTES * description.n_params
    needed, free = memory_needed(description, batch, length, verify=verify), free_memory()
    if needed > free:
        rest = f", and a sample of {batch} x {length} tokens" if verify else ""
        raise UserError(
            f"not enough memory: {_gigabytes(needed)} needed ({WEIGHT_COPIES} copies of {_gigabytes(weights)} of "
            f"weights{rest}) and {_gigabytes(free)} available",
            fix="use a larger machine"
            + (", or a smaller sample: --batch-size, --max-seq-len" if verify else ", or end other programs"),
        )
    there = next(path for path in (stage, *stage.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if weights + _GRAPH_BYTES > free:
        raise UserError(
            f"not enough disk space: {_gigabytes(weights + _GRAPH_BYTES)} to write and {_gigabytes(free)} free in "
            f"{there}",
            fix="free some space, or name another place",
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
