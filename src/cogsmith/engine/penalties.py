"""Penalties for ids that a stream already holds, for all rows of a step at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cogsmith.engine.request import Sampling
from cogsmith.engine.transfer import to_device

# A client may send any finite double; beyond this, float32 arithmetic would turn into infinities and NaN.
LARGEST = 1e30


def penalise_repetition(scores: torch.Tensor, rows: Sequence[tuple[int, np.ndarray, Sampling]]) -> None:
    """Divide positive and multiply negative scores of the given ids, in place (Keskar et al. 2019).

    `scores` is `[rows, width]`; each of `rows` names a row, the ids in it, which may repeat, and the settings.
    """
    if rows:
        places, penalties = _spread(scores, [(row, ids, s.repetition_penalty) for row, ids, s in rows])
        values = scores.view(-1).gather(0, places)
        penalised = torch.where(values < 0, values * penalties, values / penalties)
        scores.view(-1).scatter_(0, places, penalised)


def penalise_presence(scores: torch.Tensor, rows: Sequence[tuple[int, np.ndarray, np.ndarray, Sampling]]) -> None:
    """Subtract the presence penalty once, and the frequency penalty per occurrence, in place (as OpenAI's API does).

    Each of `rows` names a row of `scores` `[rows, width]`, the ids in it, each once, their counts and the settings.
    """
    if rows:
        amounts = [
            (row, ids, _bounded(s.presence_penalty) + _bounded(s.frequency_penalty) * counts)
            for row, ids, counts, s in rows
        ]
        places, penalties = _spread(scores, amounts)
        values = scores.view(-1).gather(0, places)
        scores.view(-1).scatter_(0, places, values - penalties)


def _spread(
    scores: torch.Tensor, rows: Sequence[tuple[int, np.ndarray, float | np.ndarray]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of all rows' ids in the flattened scores, and the amount for each, both `[ids]`."""
    places = np.concatenate([ids + row * scores.shape[1] for row, ids, _ in rows])
    amounts = np.concatenate([np.broadcast_to(_bounded(amount), ids.shape) for _, ids, amount in rows])
    return to_device(places, scores.device), to_device(amounts.astype(np.float32), scores.device)


def _bounded(value: float | np.ndarray) -> np.ndarray:
    return np.clip(value, -LARGEST, LARGEST)
