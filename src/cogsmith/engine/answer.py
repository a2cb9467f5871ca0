"""What a step says of each row, and how it comes from the device to the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cogsmith.engine.request import ScoreRequest
from cogsmith.engine.transfer import to_device, to_host


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row is to be told beside its token: how many of the likeliest ids, and which ids besides.

    `id_array` holds `logprob_ids` once more, int64, so that no step has to turn them into one.
    """

    top_logprobs: int
    logprob_ids: tuple[int, ...]
    id_array: np.ndarray

    @classmethod
    def with_score(cls, request: ScoreRequest) -> Wanted:
        """What each scored token of a request is told with."""
        return cls(request.top_logprobs, request.logprob_ids, np.array(request.logprob_ids, np.int64))


@dataclass(frozen=True, slots=True)
class Answer:
    """A row's token, its log-probability, the likeliest alternatives, likeliest first, and the ids asked for by name.

    What a mask excludes is in neither list. `logprobs` is None where no ids were asked for. The numbers mean nothing
    where not `is_possible`: mask and constraint have left no id.
    """

    token: int
    logprob: float
    top_logprobs: dict[int, float]
    logprobs: dict[int, float] | None = None
    is_possible: bool = True

    @classmethod
    def of_first(cls, request: ScoreRequest) -> Answer:
        """The score of the first token after an empty prompt: nothing comes before it, so 0.0 by definition."""
        token = request.scored[0]
        return cls(token, 0.0, {token: 0.0}, {} if request.logprob_ids else None)

    @property
    def is_finite(self) -> bool:
        """False where the model itself gave infinities or NaN: one of them spoils its whole row."""
        return math.isfinite(self.logprob)


@dataclass(frozen=True, slots=True)
class Results:
    """What a step gives, on the device still.

    `logprobs` is `[rows, width]`. The others are `[rows, 1]`, and `listed`, the likeliest ids, `[rows, k]`.
    """

    logprobs: torch.Tensor
    tokens: torch.Tensor
    listed: torch.Tensor
    possible: torch.Tensor
    settled: torch.Tensor


def read_answers(results: Results, wanted: Sequence[Wanted]) -> list[Answer | None]:
    """Bring all that the rows want to the host, at once; None for a row whose token is not settled."""
    ids = torch.cat([results.tokens, results.listed], dim=-1)
    named = _padded([want.id_array for want in wanted])
    named_too = torch.cat([ids, to_device(named, ids.device)], dim=-1) if named.size else ids
    values = results.logprobs.gather(-1, named_too)
    rows = zip(*to_host([results.settled, results.possible, ids, values]), wanted, strict=True)
    return [
        _answer(row_ids, row_values, want, possible=bool(possible)) if settled else None
        for settled, possible, row_ids, row_values, want in rows
    ]


def _answer(ids: np.ndarray, values: np.ndarray, want: Wanted, *, possible: bool) -> Answer:
    # Cut before making Python objects: one row may ask for the whole vocabulary, the others must not pay for it.
    most = len(ids) - 1
    count = min(want.top_logprobs, most)
    token, *listed = ids[: count + 1].tolist()
    top = _possible(listed, values[1 : count + 1])
    logprob = float(values[0])
    top.setdefault(token, logprob)
    named = values[most + 1 : most + 1 + len(want.logprob_ids)]
    return Answer(token, logprob, top, _possible(want.logprob_ids, named) if want.logprob_ids else None, possible)


def _possible(ids: Sequence[int], logprobs: np.ndarray) -> dict[int, float]:
    """Pair ids with log-probabilities, without those of probability 0."""
    pairs = zip(ids, logprobs.tolist(), strict=True)
    if np.isneginf(logprobs).any():
        return {token: logprob for token, logprob in pairs if logprob != -math.inf}
    return dict(pairs)


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the rows as one array, shorter ones filled up with id 0."""
    padded = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded
