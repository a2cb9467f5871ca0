"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

import psutil

_CONTROL = Path("/sys/fs/cgroup")
"""Where a container's limits stand: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files"""


def free_memory() -> int:
    """Return the bytes that are free: the machine's, or what its container's limit leaves.

    Files that were read and are only kept in case somebody asks again are given back, and so count as free: after a
    model was loaded, that is about what its weights take.
    """
    available = int(psutil.virtual_memory().available)
    try:
        limit = (_CONTROL / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CONTROL / "memory.current").read_text(encoding="ascii"))
        facts = (_CONTROL / "memory.stat").read_text(encoding="ascii").split()
        kept = int(facts[facts.index("inactive_file") + 1])
        return available if limit == "max" else min(available, max(0, int(limit) - used + kept))
    except (OSError, ValueError):
        return available
