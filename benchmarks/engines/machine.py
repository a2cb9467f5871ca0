"""What the benchmark runs on, and how much memory a process took. Linux."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe(threads: int) -> str:
    """Name the processor, the cores granted, the memory and what shares the machine."""
    load = os.getloadavg()[0]
    return (
        f"{_field('/proc/cpuinfo', 'model name')}, {granted_cores()} cores granted, {threads} threads, "
        f"{_kilobytes('/proc/meminfo', 'MemTotal') / 2**20:.0f} GiB, {platform.system()} {platform.release()}; "
        f"OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY')}; load average at the start {load:.1f}"
    )


def granted_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def computes_bf16() -> bool:
    """Whether the processor computes bfloat16 natively."""
    flags = _field("/proc/cpuinfo", "flags").split() or _field("/proc/cpuinfo", "Features").split()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def peak_memory(process: int) -> int:
    """Return the most bytes of physical memory that `process` has held at once (VmHWM, proc(5))."""
    return _kilobytes(f"/proc/{process}/status", "VmHWM") * 1024


def largest_process(root: int) -> int:
    """Return which of `root` and the processes below it holds the most memory."""
    return max(_family(root), key=_resident)


def _family(root: int) -> list[int]:
    children = Path(f"/proc/{root}/task").glob("*/children")
    return [root, *(one for file in children for child in file.read_text().split() for one in _family(int(child)))]


def _resident(process: int) -> int:
    return _kilobytes(f"/proc/{process}/status", "VmRSS")


def _kilobytes(file: str, field: str) -> int:
    return int(_field(file, field).split()[0])


def _field(file: str, name: str) -> str:
    """Return the value of `name` in a file of `name: value` lines; empty where it has none."""
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
