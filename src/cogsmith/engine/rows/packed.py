"""The row back-end that runs all tokens of a step in one line: decoding rows and prompt chunks together.

No row is padded in the model's matrices, only in attention, group by group. Keys and values lie in pages, so that rows
may begin with the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from cogsmith.engine.kv.memory import PageChange
from cogsmith.engine.rows import attention
from cogsmith.engine.rows.attention import ShapeProbe, Step, during
from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.graphs import DecodeGraphs
from cogsmith.engine.rows.plan import Plan
from cogsmith.engine.rows.pool import LayerShape, Pool
from cogsmith.engine.rows.runner import Layers, RowChunk

NewStep = Callable[[Plan, Pool], Step]
"""Makes one step's attention: by whichever kernels the device has."""


class PackedRunner:
    """Runs a model whose layers all let themselves be given an attention function (see `paged_layers`).

    `graphs`, where there are some, run the steps that they take.
    """

    def __init__(self, forward: Forward, pool: Pool, new_step: NewStep, graphs: DecodeGraphs | None = None) -> None:
        self._forward = forward
        self._pool = pool
        self._new_step = new_step
        self._graphs = graphs

    def change_pages(self, changes: Sequence[PageChange]) -> None:
        """Copy and clear pages, in order."""
        self._pool.change(changes)

    def forward(self, chunks: Sequence[RowChunk]) -> torch.Tensor:
        """Run one step. Returns logits `[number of wanted, head_size]`, chunk by chunk."""
        for chunk in chunks:
            if chunk.given is not None:
                self._pool.write(chunk.pages, chunk.given, chunk.start)
        if self._graphs is not None and self._graphs.takes(chunks):
            return self._graphs.run(chunks)
        plan = Plan(chunks, self._pool.page_size, self._forward.device)
        with during(self._new_step(plan, self._pool), self._forward.config):
            return self._forward.packed(plan.input_ids, plan.position_ids, plan.wanted)

    def layers_of(self, row: int, pages: Sequence[int], num_tokens: int) -> Layers:
        """Return a row's keys and values so far, on the host."""
        return self._pool.read(pages, num_tokens)

    def close_row(self, row: int) -> None:
        """Nothing: what a row has is its pages."""


def paged_layers(forward: Forward, windows: Sequence[int | None] | None = None) -> Mapping[int, LayerShape]:
    """Return what each layer keeps of a token.

    `windows` are those of the layers by the model's config. Raises TypeError, ValueError or the like for an
    architecture that cannot run so, such as one that keeps a window from its attention and puts it in a mask.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, attention.paged_attention)
    probe = ShapeProbe()
    places = torch.arange(2, device=forward.device)
    with during(probe, forward.config):
        forward.packed(torch.zeros_like(places)[None], places[None], places[:1])
    if not probe.shapes:
        raise TypeError("no layer asked for an attention function")
    if windows is not None and probe.windows != dict(enumerate(windows)):
        raise TypeError("attention is not told of a layer's window")
    return probe.shapes
