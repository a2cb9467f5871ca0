"""What is added to a row of scores: a bias, and minus infinity for what a mask excludes; shared where it is the same.

A client like LMQL sends the same few masks again and again, and one for each stream of a batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

import numpy as np
import torch

from cogsmith.engine.penalties import LARGEST


class DenseRow:
    """One number for each id of the model's head, float32 `[head_size]`; on the device from its first use on."""

    def __init__(self, values: np.ndarray) -> None:
        self.allowed = np.packbits(values > -np.inf, bitorder="little")
        self._values = torch.from_numpy(values)

    def on(self, device: torch.device) -> torch.Tensor:
        """The numbers as a tensor there. Called on the engine's thread alone."""
        if self._values.device != device:
            self._values = self._values.to(device, non_blocking=True)
        return self._values

    def leaves_any(self, bitset: np.ndarray) -> bool:
        """Whether an id is allowed both here and in `bitset`."""
        both = min(len(bitset), len(self.allowed))
        return bool(np.bitwise_and(bitset[:both], self.allowed[:both]).any())


class DenseRows:
    """The rows used last, by what they are made from. Any thread may ask for one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[Hashable, tuple[DenseRow, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> DenseRow:
        """Return the row of `key`; `make` gives its numbers where it is not at hand."""
        with self._lock:
            if key in self._rows:
                self._rows.move_to_end(key)
                return self._rows[key][0]
        values = make()
        row = DenseRow(values)
        with self._lock:
            if key not in self._rows:
                self._rows[key] = row, values.nbytes
                self._bytes += values.nbytes
                self._forget_oldest()
        return row

    def _forget_oldest(self) -> None:
        while self._bytes > self._max_bytes and len(self._rows) > 1:
            _, (_, size) = self._rows.popitem(last=False)
            self._bytes -= size


def spread(bias: Mapping[int, float], head_size: int) -> np.ndarray:
    """Spread a sparse bias over the model's head, float32 `[head_size]`.

    Ids beyond the head are ignored: a client's tokenizer may be larger.
    """
    ids = np.fromiter(bias.keys(), np.int64, len(bias))
    values = np.fromiter(bias.values(), np.float64, len(bias)).clip(-LARGEST, LARGEST)
    inside = ids < head_size
    dense = np.zeros(head_size, np.float32)
    dense[ids[inside]] = values[inside]
    return dense
