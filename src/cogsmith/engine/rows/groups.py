"""Which rows attend together: one attention call for those that are alike, and one for a beginning that several share.

A beginning is attended to by all tokens behind it at once, as in cascade attention (Ye et al. 2024): its keys are read
once, however many rows there are, and its part of the softmax is merged with the rest by their sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cogsmith.engine.rows.plan import Plan

_LEAST_FILL = 0.7
"""Of a group's queries, and of its pages, so much of every row is no padding."""

_SHORT = 4
"""Rows of up to so many pages share a group whatever they fill: a call costs more than their padding."""

_LEAST_SHARED = 8
"""Pages of a beginning that is worth a call of its own."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows whose attention is computed together: `queries` new tokens each at most, over `pages` pages at most.

    `tokens` `[rows, queries]` are places in the step's line, `table` `[rows * pages]` the pages, one row after another,
    `visible` `[rows, queries, pages * page_size]` says which keys a token may look at, None that it may look at all.
    What is padding in `tokens` repeats the row's last token; `kept` are the places of the others in the flattened
    `[rows * queries]`. A group may be the whole line, in its order and without padding.
    """

    tokens: torch.Tensor
    table: torch.Tensor
    visible: torch.Tensor | None
    kept: torch.Tensor
    is_whole_line: bool = False


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How a step's rows attend: each token is in one of `groups`, and may be in one of `beginnings` too."""

    groups: list[Group]
    beginnings: list[Group]


def arrange(plan: Plan, window: int | None, *, shares: bool) -> Arrangement:
    """Sort a step's rows into groups, for layers in which a token sees the last `window` tokens, itself included.

    None stands for layers in which it sees all: only those may have beginnings apart, and only if `shares`.
    """
    beginnings = list(_beginnings(plan)) if shares and window is None else []
    if window is None:
        first_pages = np.zeros_like(plan.starts)
        for rows, count in beginnings:
            first_pages[rows] = count
    else:
        first_pages = np.asarray(np.maximum(0, plan.starts - window + 1) // plan.page_size)
    groups = [_group(plan, rows, first_pages[rows], window) for rows in _alike(plan, plan.num_pages - first_pages)]
    return Arrangement(groups, [_shared(plan, rows, count) for rows, count in beginnings])


def _beginnings(plan: Plan) -> Iterator[tuple[list[int], int]]:
    """Yield rows that begin with the same pages, and the number of these pages, all of them before any new token."""
    alike: dict[int, list[int]] = {}
    for row, count in enumerate(plan.starts // plan.page_size):
        if count >= _LEAST_SHARED:
            # One page follows one text only: those that share this one share all before it.
            alike.setdefault(int(plan.pages(row, _LEAST_SHARED - 1, 1)[0]), []).append(row)
    for rows in alike.values():
        if len(rows) > 1:
            most = int(plan.starts[rows].min()) // plan.page_size
            pages = np.stack([plan.pages(row, 0, most) for row in rows])
            same = (pages == pages[0]).all(axis=0)
            yield rows, most if same.all() else int(same.argmin())


def _shared(plan: Plan, rows: list[int], count: int) -> Group:
    tokens = np.concatenate([plan.offsets[row] + np.arange(plan.lengths[row]) for row in rows])
    table, kept = plan.pages(rows[0], 0, count), np.arange(len(tokens))
    return Group(plan.tensor(tokens[None]), plan.tensor(table), None, plan.tensor(kept))


def _alike(plan: Plan, num_pages: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of the rows of each group: most queries first, then most pages."""
    order = np.lexsort((-num_pages, -plan.lengths))
    first = 0
    for place, row in enumerate(order):
        head = order[first]
        enough_queries = plan.lengths[row] >= _LEAST_FILL * plan.lengths[head]
        enough_pages = num_pages[row] >= _LEAST_FILL * num_pages[head] or num_pages[head] <= _SHORT
        if not (enough_queries and enough_pages):
            yield order[first:place]
            first = place
    yield order[first:]


def _group(plan: Plan, rows: np.ndarray, first_pages: np.ndarray, window: int | None) -> Group:
    count = int((plan.num_pages[rows] - first_pages).max())
    lengths, starts = plan.lengths[rows], plan.starts[rows]
    within = np.arange(lengths.max())
    # Padding repeats the row's last token, so that it sees something: its result is thrown away.
    places = np.minimum(within, lengths[:, None] - 1)
    positions = (starts[:, None] + places)[:, :, None]
    keys = ((first_pages * plan.page_size)[:, None] + np.arange(count * plan.page_size))[:, None, :]
    visible = keys <= positions
    if window is not None:
        visible &= keys > positions - window
    tables = [plan.pages(int(row), int(first), count) for row, first in zip(rows, first_pages, strict=True)]
    tokens = plan.offsets[rows][:, None] + places
    return Group(
        tokens=plan.tensor(tokens),
        table=plan.tensor(np.concatenate(tables)),
        visible=plan.tensor(visible),
        kept=plan.tensor(np.flatnonzero(within < lengths[:, None])),
        is_whole_line=np.array_equal(tokens.ravel(), np.arange(plan.lengths.sum())),
    )
