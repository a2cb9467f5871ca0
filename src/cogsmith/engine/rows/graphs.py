"""Decode steps as CUDA graphs: a step's thousands of kernels are launched as one.

A graph is recorded for a number of rows, at first use, and replayed with what changes copied into tensors that stay
where they are. A step of fewer rows is filled up with idle ones, which look at one token of a page of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cogsmith.engine.rows.attention import during
from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.pool import Pool
from cogsmith.engine.rows.runner import RowChunk
from cogsmith.engine.rows.varlen import Lines, VarlenStep

_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_WARM_UPS = 3
"""Passes before a recording: kernels choose their ways of working at the first ones."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    ids: torch.Tensor
    positions: torch.Tensor
    lines: Lines
    logits: torch.Tensor


class DecodeGraphs:
    """Runs steps in which every row brings one token. `idle_page` is a page of the pool that no row has."""

    def __init__(self, forward: Forward, pool: Pool, max_context: int, idle_page: int) -> None:
        self._forward = forward
        self._pool = pool
        self._max_context = max_context
        self._idle_page = idle_page
        self._recorded: dict[int, _Recorded] = {}

    def takes(self, chunks: Sequence[RowChunk]) -> bool:
        """Whether a step is one of these, and every row's text within the context that graphs are recorded for."""
        return len(chunks) <= _SIZES[-1] and all(
            len(chunk.tokens) == chunk.num_wanted == 1 and chunk.start < self._max_context for chunk in chunks
        )

    def run(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run a step; returns logits `[rows, head_size]`."""
        size = next(size for size in _SIZES if size >= len(chunks))
        recorded = self._recorded.get(size)
        if recorded is None:
            recorded = self._recorded[size] = self._record(size)
        self._fill(recorded, chunks, size)
        recorded.graph.replay()
        # The next replay writes to the same place.
        return recorded.logits[: len(chunks)].clone()

    def _fill(self, recorded: _Recorded, chunks: Sequence[RowChunk], size: int) -> None:
        page_size = self._pool.page_size
        idle = size - len(chunks)
        positions = np.array([*(chunk.start for chunk in chunks), *[0] * idle])
        table = np.full(tuple(recorded.lines.table.shape), self._idle_page, np.int32)
        for row, chunk in enumerate(chunks):
            # A row may hold more pages than it has come to yet.
            pages = chunk.pages[: chunk.start // page_size + 1]
            table[row, : len(pages)] = pages
        slots = table[np.arange(size), positions // page_size].astype(np.int64) * page_size + positions % page_size
        recorded.ids.copy_(torch.tensor([[*(chunk.tokens[0] for chunk in chunks), *[0] * idle]]), non_blocking=True)
        recorded.positions.copy_(torch.from_numpy(positions)[None], non_blocking=True)
        recorded.lines.slots.copy_(torch.from_numpy(slots), non_blocking=True)
        recorded.lines.lengths.copy_(torch.from_numpy((positions + 1).astype(np.int32)), non_blocking=True)
        recorded.lines.table.copy_(torch.from_numpy(table), non_blocking=True)

    def _record(self, size: int) -> _Recorded:
        device = self._forward.device
        num_pages = -(-self._max_context // self._pool.page_size)
        ids = torch.zeros((1, size), dtype=torch.long, device=device)
        slots = torch.full((size,), self._idle_page * self._pool.page_size, device=device)
        lines = Lines(
            slots=slots,
            starts=torch.arange(size + 1, dtype=torch.int32, device=device),
            lengths=torch.ones(size, dtype=torch.int32, device=device),
            table=torch.full((size, num_pages), self._idle_page, dtype=torch.int32, device=device),
            most_new=1,
            most_keys=self._max_context,
        )
        positions, wanted = torch.zeros_like(ids), torch.arange(size, device=device)
        graph = torch.cuda.CUDAGraph()
        with during(VarlenStep(lines, self._pool), self._forward.config):
            side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    self._forward.packed(ids, positions, wanted)
            torch.cuda.current_stream(device).wait_stream(side)
            with torch.cuda.graph(graph):
                logits = self._forward.packed(ids, positions, wanted)
        return _Recorded(graph, ids, positions, lines, logits)
