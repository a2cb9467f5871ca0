"""A step's numbers on their way from the device to the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row is to be told beside its token: how many of the likeliest ids, and which ids besides."""

    top_logprobs: int
    logprob_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A row's token, its log-probability, the likeliest alternatives, likeliest first, and the ids asked for by name.

    What a mask excludes is in neither list. `logprobs` is None where no ids were asked for.
    """

    token: int
    logprob: float
    top_logprobs: dict[int, float]
    logprobs: dict[int, float] | None = None

    @property
    def is_finite(self) -> bool:
        """False where the model itself gave infinities or NaN."""
        return all(map(math.isfinite, (self.logprob, *self.top_logprobs.values(), *(self.logprobs or {}).values())))


def read_answers(
    logprobs: torch.Tensor, tokens: torch.Tensor, wanted: Sequence[Wanted], vocab_size: int
) -> list[Answer]:
    """Bring all that the rows want to the host, at once.

    `logprobs` is `[rows, head_size]`, `tokens` `[rows]`. Only ids below `vocab_size` are listed as alternatives.
    """
    most = min(max(want.top_logprobs for want in wanted), vocab_size)
    top_values, top_ids = logprobs[:, :vocab_size].topk(most, dim=-1)
    named = _padded([want.logprob_ids for want in wanted], tokens.device)
    ids = torch.cat([tokens[:, None], top_ids, named], dim=-1)
    values = torch.cat([logprobs.gather(-1, tokens[:, None]), top_values, logprobs.gather(-1, named)], dim=-1)
    rows = zip(ids.cpu().numpy(), values.cpu().numpy(), wanted, strict=True)
    return [_answer(row_ids, row_values, want, most) for row_ids, row_values, want in rows]


def _answer(ids: np.ndarray, values: np.ndarray, want: Wanted, most: int) -> Answer:
    # Cut before making Python objects: one row may ask for the whole vocabulary, the others must not pay for it.
    count = min(want.top_logprobs, most)
    token, *listed = ids[: count + 1].tolist()
    logprob, *listed_values = values[: count + 1].tolist()
    top = _possible(listed, listed_values)
    top.setdefault(token, logprob)
    named = values[most + 1 : most + 1 + len(want.logprob_ids)].tolist()
    return Answer(token, logprob, top, _possible(want.logprob_ids, named) if want.logprob_ids else None)


def _possible(ids: Sequence[int], logprobs: Sequence[float]) -> dict[int, float]:
    """Pair ids with log-probabilities, without those of probability 0."""
    return {token: logprob for token, logprob in zip(ids, logprobs, strict=True) if logprob != -math.inf}


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return the rows as one tensor, shorter ones filled up with id 0."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long, device=device)
