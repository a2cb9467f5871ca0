"""By which kernels the packed back-end may attend on a device: the fastest first."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from cogsmith.engine.kv.memory import PAGE_SIZE
from cogsmith.engine.rows import varlen
from cogsmith.engine.rows.forward import Forward
from cogsmith.engine.rows.graphs import DecodeGraphs
from cogsmith.engine.rows.grouped import GroupedStep
from cogsmith.engine.rows.packed import PackedRunner
from cogsmith.engine.rows.plan import Plan
from cogsmith.engine.rows.pool import LayerShape, Pool
from cogsmith.engine.rows.varlen import VarlenStep, lines_of


@dataclass(frozen=True, slots=True)
class Kernel:
    """A way to attend, with the pages that it wants."""

    name: str
    page_size: int

    def runner(
        self, forward: Forward, layers: Mapping[int, LayerShape], num_pages: int, max_context: int
    ) -> PackedRunner:
        """Make a back-end that attends this way, with a pool of `num_pages` pages."""
        if self.name == "grouped":
            return PackedRunner(forward, Pool(layers, num_pages, self.page_size), GroupedStep)
        # One page more, for the idle rows of graphs.
        pool = Pool(layers, num_pages + 1, self.page_size, by_heads=False)
        graphs = DecodeGraphs(forward, pool, max_context, num_pages) if self.name == "varlen, graphs" else None
        return PackedRunner(forward, pool, _varlen_step, graphs)


def kernels_for(layers: Collection[LayerShape]) -> list[Kernel]:
    """The kernels to try for a model with these layers."""
    grouped = Kernel("grouped", PAGE_SIZE)
    devices = {layer.device for layer in layers}
    in_half = all(layer.dtype in (torch.float16, torch.bfloat16) for layer in layers)
    if {device.type for device in devices} != {"cuda"} or not in_half:
        return [grouped]
    # A graph's kernels are recorded on one device.
    names = ["varlen, graphs", "varlen"] if len(devices) == 1 else []
    return [*(Kernel(name, varlen.PAGE_SIZE) for name in names), grouped]


def _varlen_step(plan: Plan, pool: Pool) -> VarlenStep:
    return VarlenStep(lines_of(plan), pool)
