"""How much memory keys and values may take."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from cogsmith.engine.free_memory import free_memory

_GPU_SHARE = 0.85
"""Of a GPU's memory that the weights leave free; the rest is for a step's own tensors."""

_CPU_SHARE = 0.125
"""Of a machine's free memory: the user has other programs there."""


def kv_budget(devices: Iterable[torch.device]) -> int:
    """Return the bytes that keys and values may take by default, on all `devices` together."""
    return sum(_budget_of(device) for device in set(devices))


def _budget_of(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_SHARE)
    return int(free_memory() * _CPU_SHARE)
