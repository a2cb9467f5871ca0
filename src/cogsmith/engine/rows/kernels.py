"""By which kernels the packed back-end may attend on a device: the fastest first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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

NewRunner = Callable[[Forward, Mapping[int, LayerShape], int, int], PackedRunner]
"""Makes a back-end with a pool of so many pages, for texts of so many tokens at most."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A way to attend, with the pages that it wants; `runner` makes a back-end that attends so."""

    name: str
    page_size: int
    runner: NewRunner


def kernels_for(layers: Collection[LayerShape]) -> list[Kernel]:
    """The kernels to try for a model with these layers."""
    grouped = Kernel("grouped", PAGE_SIZE, _grouped)
    devices = {layer.device for layer in layers}
    in_half = all(layer.dtype in (torch.float16, torch.bfloat16) for layer in layers)
    if {device.type for device in devices} != {"cuda"} or not in_half:
        return [grouped]
    # A graph's kernels are recorded on one device.
    if len(devices) > 1:
        return [grouped]
    return [
        Kernel("varlen, graphs", varlen.PAGE_SIZE, _varlen_graphs),
        Kernel("varlen", varlen.PAGE_SIZE, _varlen),
        grouped,
    ]


def _grouped(forward: Forward, layers: Mapping[int, LayerShape], num_pages: int, max_context: int) -> PackedRunner:
    return PackedRunner(forward, Pool(layers, num_pages, PAGE_SIZE), GroupedStep)


def _varlen(forward: Forward, layers: Mapping[int, LayerShape], num_pages: int, max_context: int) -> PackedRunner:
    return PackedRunner(forward, Pool(layers, num_pages, varlen.PAGE_SIZE, by_heads=False), _varlen_step)


def _varlen_graphs(
    forward: Forward, layers: Mapping[int, LayerShape], num_pages: int, max_context: int
) -> PackedRunner:
    # One page more, for the idle rows of graphs.
    pool = Pool(layers, num_pages + 1, varlen.PAGE_SIZE, by_heads=False)
    return PackedRunner(forward, pool, _varlen_step, DecodeGraphs(forward, pool, max_context, num_pages))


def _varlen_step(plan: Plan, pool: Pool) -> VarlenStep:
    return VarlenStep(lines_of(plan), pool)
