"""Which row back-end is right for a model: decided by running it, not by its name.

Some architectures keep state that cannot be padded, or ignore a mask without a word. So a back-end must first
give a plain forward pass's log-probabilities for ragged rows that come late and go early, prompts in chunks.

How close is close depends on the model: in bfloat16 or 8 bits the same text gives other numbers in another shape,
because kernels sum in another order. That noise is measured, by running the same schedule with no cache at all, which
is right by definition. A fault is far above it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import torch

from cogsmith.engine.kv.memory import PAGE_SIZE
from cogsmith.engine.rows.forward import NOT_THIS_ONE, Forward
from cogsmith.engine.rows.recompute import RecomputeRunner
from cogsmith.engine.rows.runner import RowChunk, Runner

_log = logging.getLogger("cogsmith.engine")

# The longer one fills several pages, and is decoded across the end of one.
_PROMPT_LENGTHS = (45, 4)
_NUM_DECODED = 6
_STEPS_BETWEEN_STARTS = 3
_PAGES_PER_TEXT = -(-(max(_PROMPT_LENGTHS) + _NUM_DECODED) // PAGE_SIZE)
# Far-off tokens' log-probabilities are noise in half precision; the likely ones are what a fault would show in.
_NUM_COMPARED = 32
# In float32 the measured noise can be zero by luck.
LEAST_TOLERANCE = 1e-3
# SmolLM2's noise in bfloat16 is 0.12; an ignored mask, or positions one off, show as 1 to 2.5.
_TIMES_NOISE = 3.0
# What later tokens may change at earlier ones: nothing, but for experts whose sums go another way in other company. Of
# 85 families that read forwards, random and tiny, none showed more than 5e-7; of 15 that do not, none less than 0.04.
_MOST_BACKWARDS = 0.02
_MOST_BACKWARDS_IN_HALF = 0.2


class SelfTest:
    """Plain forward passes over two texts, and how far honest noise takes a stepwise run from them."""

    @torch.inference_mode()
    def __init__(self, forward: Forward, vocab_size: int) -> None:
        self._forward = forward
        self._texts = [_text(length + _NUM_DECODED, vocab_size) for length in _PROMPT_LENGTHS]
        plain = [forward(torch.tensor([text], device=forward.device))[0] for text in self._texts]
        self._plain = torch.log_softmax(torch.cat(plain).float(), dim=-1)
        self._recompute = RecomputeRunner(forward)

    @cached_property
    @torch.inference_mode()
    def is_causal(self) -> bool:
        """Whether logits stay what they are when the second half of a text is another."""
        text = self._texts[0]
        half = len(text) // 2
        other = [*text[:half], *reversed(text[half:])]
        # Passes of one shape: the same kernels add up in the same order.
        changed = self._forward(torch.tensor([other], device=self._forward.device))[0, :half]
        most = _MOST_BACKWARDS if self._forward.dtype.itemsize > 2 else _MOST_BACKWARDS_IN_HALF
        return not deviation(self._plain[:half], changed) > most  # NaN is for others to see

    @cached_property
    def tolerance(self) -> float:
        """How far honest noise may take a stepwise run from a plain pass. Measured only when it is asked for."""
        with torch.inference_mode():
            return max(LEAST_TOLERANCE, _TIMES_NOISE * self._deviation(self._recompute))

    @property
    def num_pages(self) -> int:
        """Pages that the texts take in a back-end that has some."""
        return len(self._texts) * _PAGES_PER_TEXT

    @torch.inference_mode()
    def passes(self, runner: Runner) -> bool:
        """Return whether `runner` gives the plain log-probabilities, up to the model's own noise."""
        try:
            deviation = self._deviation(runner)
        except NOT_THIS_ONE as error:
            _log.info("%s does not fit: %s: %s", type(runner).__name__, type(error).__name__, error)
            return False
        fits = deviation <= LEAST_TOLERANCE or deviation <= self.tolerance  # False for NaN too
        if not fits:
            _log.info("%s is off by %.3g, more than %.3g", type(runner).__name__, deviation, self.tolerance)
        return fits

    def _deviation(self, runner: Runner) -> float:
        return deviation(self._plain, torch.cat(_run_ragged(runner, self._texts)))


def deviation(plain: torch.Tensor, actual: torch.Tensor) -> float:
    """Mean absolute difference of the likely tokens' log-probabilities, at the worst position.

    Both are logits `[positions, head_size]`, or log-probabilities already.
    """
    plain, actual = torch.log_softmax(plain.float(), dim=-1), torch.log_softmax(actual.float(), dim=-1)
    top = plain.topk(min(_NUM_COMPARED, plain.shape[-1])).indices
    return float((plain.gather(-1, top) - actual.gather(-1, top)).abs().mean(-1).max())


def _text(length: int, vocab_size: int) -> list[int]:
    return [(7 + 31 * position) % vocab_size for position in range(length)]


def _run_ragged(runner: Runner, texts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Run all texts through `runner`, each starting some steps after the one before; return logits per text."""
    todo = [_chunks(row, text, range(row, len(texts) * _PAGES_PER_TEXT, len(texts))) for row, text in enumerate(texts)]
    logits: list[list[torch.Tensor]] = [[] for _ in texts]
    step = 0
    while any(todo):
        active = [i for i, chunks in enumerate(todo) if chunks and step >= i * _STEPS_BETWEEN_STARTS]
        chunks = [todo[i].popleft() for i in active]
        parts = torch.split(runner.forward(chunks), [len(chunk.tokens) for chunk in chunks])
        for i, part in zip(active, parts, strict=True):
            logits[i].append(part)
            if not todo[i]:
                runner.close_row(i)
        step += 1
    return [torch.cat(parts) for parts in logits]


def _chunks(row: int, text: list[int], pages: Sequence[int]) -> deque[RowChunk]:
    """The prompt in two chunks, then token by token; all logits wanted."""
    num_prompt = len(text) - _NUM_DECODED
    borders = [0, num_prompt // 2, *range(num_prompt, len(text) + 1)]
    return deque(RowChunk(row, a, text[a:b], b - a, pages) for a, b in pairwise(borders))
