"""How much memory keys and values may take."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch

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
    return int(_free_memory() * _CPU_SHARE)


def _free_memory() -> int:
    """Bytes that this container may still take: the machine's, or what its memory limit leaves."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")
        return free if limit == "max" else min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):
        return free
