"""Numbers on their way between host and device, without waiting but once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to the device, without waiting for what the device does at present."""
    return torch.from_numpy(values).to(device, non_blocking=True)


def to_host(parts: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Bring tensors `[rows, n]` to the host in one copy, for which it waits.

    Whole numbers and booleans come as int32, numbers of float32 as they are.
    """
    bits = [part if part.is_floating_point() else part.to(torch.int32) for part in parts]
    packed = torch.cat([part.view(torch.int32) for part in bits], dim=-1).cpu().numpy()
    ends = np.cumsum([part.shape[1] for part in parts])
    return [
        piece.view(np.float32) if part.is_floating_point() else piece
        for part, piece in zip(parts, np.split(packed, ends[:-1], axis=1), strict=True)
    ]
