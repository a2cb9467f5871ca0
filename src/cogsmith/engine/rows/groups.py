"""Rows that are alike in the number of their new tokens and of their pages: one attention call for each group."""

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


@dataclass(frozen=True, slots=True)
class Group:
    """Rows whose attention is computed together: `queries` new tokens each at most, over `pages` pages at most.

    `tokens` `[rows, queries]` are places in the step's line, `table` `[rows * pages]` the pages, one row after another,
    `visible` `[rows, queries, pages * page_size]` says which keys a token may look at. What is padding in `tokens`
    repeats the row's last token; `kept` are the places of the others in the flattened `[rows * queries]`. A group
    may be the whole line, in its order and without padding.
    """

    tokens: torch.Tensor
    table: torch.Tensor
    visible: torch.Tensor
    kept: torch.Tensor
    is_whole_line: bool


def group_rows(plan: Plan, window: int | None) -> list[Group]:
    """Sort a step's rows into groups, for layers in which a token sees the last `window` tokens, itself included.

    None stands for layers in which it sees all.
    """
    first_pages = _first_pages(plan, window)
    return [_group(plan, rows, first_pages[rows], window) for rows in _alike(plan, plan.num_pages - first_pages)]


def _first_pages(plan: Plan, window: int | None) -> np.ndarray:
    """The first page that each row's first new token may look at."""
    if window is None:
        return np.zeros_like(plan.starts)
    return np.asarray(np.maximum(0, plan.starts - window + 1) // plan.page_size)


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
