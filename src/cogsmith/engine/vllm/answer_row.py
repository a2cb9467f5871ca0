"""An answer on its way back, in the row of logits that vLLM picks its token from.

vLLM samples greedily here and returns the largest values of each row, unnormalised (`processed_logits`). So the sampler
of ours draws, and then leaves in the row nothing but what the client is to be told: log-probabilities at their ids,
minus infinity elsewhere. The drawn token must be the largest and still say its own: it has the opposite sign, which
makes it at least 0, and costs no precision. Every number arrives as the sampler made it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from cogsmith.engine.answer import Answer
from cogsmith.engine.request import Request

# Where there is no answer, one of these at id 0: far beyond the opposite of any log-probability, as biases end at 1e30.
_NOT_FINITE = 2.0**120
_IMPOSSIBLE = 2.0**121
_FAILED = 2.0**122

FAILED = Answer(0, -math.inf, {})
"""Stands for an answer that could not be made."""


def width(request: Request, head_size: int) -> int:
    """How many values of a row hold an answer to `request` at most."""
    return min(1 + request.top_logprobs + len(request.logprob_ids), head_size)


def write(logits: torch.Tensor, rows: Sequence[int], answers: Iterable[Answer]) -> None:
    """Replace the rows `rows` of `logits`, float32 `[rows, head_size]`, by their answers, in place."""
    places: list[int] = []
    ids: list[int] = []
    values: list[float] = []
    for row, answer in zip(rows, answers, strict=True):
        entries = _entries(answer)
        places += [row] * len(entries)
        ids += entries.keys()
        values += entries.values()
    device = logits.device
    logits[torch.tensor(rows, device=device)] = -torch.inf
    where = torch.tensor([places, ids], device=device)
    logits[where[0], where[1]] = torch.tensor(values, dtype=torch.float32, device=device)


def read(request: Request, token: int, entries: Iterable[tuple[int, float]]) -> Answer:
    """Return the answer that a row's largest values, as pairs of id and value, hold for `token`, which vLLM drew.

    Raises RuntimeError where the sampler failed.
    """
    found = {entry: value for entry, value in entries if value != -math.inf}
    value = found.pop(token)
    if value >= _NOT_FINITE:
        return _no_answer(value)
    found[token] = -value
    likeliest = sorted(found, key=found.__getitem__, reverse=True)[: request.top_logprobs]
    top = {entry: found[entry] for entry in likeliest}
    top.setdefault(token, -value)
    return Answer(token, -value, top, _named(request, found))


def _no_answer(value: float) -> Answer:
    if value >= _FAILED:
        raise RuntimeError("sampling failed, which the log explains")
    return Answer(0, math.nan, {}, is_possible=value < _IMPOSSIBLE)


def _named(request: Request, found: Mapping[int, float]) -> dict[int, float] | None:
    if not request.logprob_ids:
        return None
    return {entry: found[entry] for entry in request.logprob_ids if entry in found}


def _entries(answer: Answer) -> dict[int, float]:
    if answer is FAILED:
        return {0: _FAILED}
    if not answer.is_possible:
        return {0: _IMPOSSIBLE}
    if not answer.is_finite:
        return {0: _NOT_FINITE}
    listed = {**(answer.logprobs or {}), **answer.top_logprobs}
    return {**listed, answer.token: -answer.logprob}
