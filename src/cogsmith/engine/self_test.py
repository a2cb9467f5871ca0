"""Which row back-end is right for a model: decided by running it, not by its name.

Some architectures keep state that cannot be padded, or ignore a mask without a word. So a back-end must first
give a plain forward pass's log-probabilities for ragged rows that come late and go early, prompts in chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import torch

from cogsmith.engine.forward import Forward
from cogsmith.engine.runner import RowChunk, Runner

_PROMPT_LENGTHS = (11, 4)
_NUM_DECODED = 5
_STEPS_BETWEEN_STARTS = 3
# Far-off tokens' log-probabilities are noisy in half precision; the likely ones are what a fault would show in.
_NUM_COMPARED = 32
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_TOLERANCE_HALF = 0.25


@torch.inference_mode()
def agrees_with_plain_forward(runner: Runner, forward: Forward, vocab_size: int) -> bool:
    """Return whether `runner` gives the log-probabilities of plain forward passes over whole texts."""
    texts = [_text(length + _NUM_DECODED, vocab_size) for length in _PROMPT_LENGTHS]
    try:
        stepped = _run_ragged(runner, texts)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError):
        return False  # the architecture's cache is not of the kind this back-end knows
    plain = [forward(torch.tensor([text], device=forward.device))[0] for text in texts]
    return all(_close(a, b) for a, b in zip(plain, stepped, strict=True))


def _text(length: int, vocab_size: int) -> list[int]:
    return [(7 + 31 * position) % vocab_size for position in range(length)]


def _run_ragged(runner: Runner, texts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Run all texts through `runner`, each starting some steps after the one before; return logits per text."""
    rows = [runner.open_row() for _ in texts]
    todo = [_chunks(row, text) for row, text in zip(rows, texts, strict=True)]
    logits: list[list[torch.Tensor]] = [[] for _ in texts]
    step = 0
    while any(todo):
        active = [i for i, chunks in enumerate(todo) if chunks and step >= i * _STEPS_BETWEEN_STARTS]
        chunks = [todo[i].popleft() for i in active]
        parts = torch.split(runner.forward(chunks), [len(chunk.tokens) for chunk in chunks])
        for i, part in zip(active, parts, strict=True):
            logits[i].append(part)
            if not todo[i]:
                runner.close_row(rows[i])
        step += 1
    return [torch.cat(parts) for parts in logits]


def _chunks(row: int, text: list[int]) -> deque[RowChunk]:
    """The prompt in two chunks, then token by token; all logits wanted."""
    num_prompt = len(text) - _NUM_DECODED
    borders = [0, num_prompt // 2, *range(num_prompt, len(text) + 1)]
    return deque(RowChunk(row, a, text[a:b], b - a) for a, b in pairwise(borders))


def _close(plain: torch.Tensor, stepped: torch.Tensor) -> bool:
    expected = torch.log_softmax(plain.float(), dim=-1)
    actual = torch.log_softmax(stepped.float(), dim=-1)
    top = expected.topk(min(_NUM_COMPARED, expected.shape[-1])).indices
    difference = (expected.gather(-1, top) - actual.gather(-1, top)).abs().max()
    return bool(difference <= _TOLERANCE.get(plain.dtype, _TOLERANCE_HALF))  # False for NaN too
