"""The tensors behind the pages: every layer's keys and values of every page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch

from cogsmith.engine.kv.memory import PageChange
from cogsmith.engine.rows.runner import Layers


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps of a token: keys `[heads, key_dim]` and values `[heads, value_dim]`."""

    heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Memory of one token in this layer."""
        return self.heads * (self.key_dim + self.value_dim) * self.dtype.itemsize


class Pool:
    """Keys and values by layer, each `[heads, pages, page_size, dim]` or `[pages, page_size, heads, dim]`.

    Layers of one shape share one tensor, so that a page is copied or cleared in one operation. Memory is zeroed by the
    system when a page is first written: a large pool costs what is used of it.
    """

    def __init__(
        self, shapes: Mapping[int, LayerShape], num_pages: int, page_size: int, *, by_heads: bool = True
    ) -> None:
        self.page_size = page_size
        self._page_dim = 2 if by_heads else 1
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self._stores: list[torch.Tensor] = []
        alike: dict[LayerShape, list[tuple[dict[int, torch.Tensor], int]]] = defaultdict(list)
        for layer, shape in shapes.items():
            alike[replace(shape, value_dim=shape.key_dim)].append((self.keys, layer))
            alike[replace(shape, key_dim=shape.value_dim)].append((self.values, layer))
        for shape, owners in alike.items():
            heads, dim = shape.heads, shape.key_dim
            size = (heads, num_pages, page_size, dim) if by_heads else (num_pages, page_size, heads, dim)
            store = _zeros((len(owners), *size), shape.dtype, shape.device)
            self._stores.append(store)
            for part, (by_layer, layer) in zip(store, owners, strict=True):
                by_layer[layer] = part

    def change(self, changes: Sequence[PageChange]) -> None:
        """Copy and clear pages, in order."""
        for run in _runs(changes):
            source = run[0].source
            for store in self._stores:
                if source is None:
                    pages = torch.tensor([change.page for change in run], device=store.device)
                    store.index_fill_(self._page_dim, pages, 0)
                else:
                    self._first(store, run[0], run[0].page).copy_(self._first(store, run[0], source))

    def write(self, pages: Sequence[int], layers: Layers, num_tokens: int) -> None:
        """Put the first `num_tokens` tokens of a row, whose `pages` are given in order, into them."""
        for layer, parts in layers.items():
            for store, given in zip((self.keys[layer], self.values[layer]), parts, strict=True):
                lines = self._lines(store)
                lines[:, self._slots(pages, num_tokens, store.device)] = given[:, :num_tokens].to(store.device)

    def read(self, pages: Sequence[int], num_tokens: int) -> Layers:
        """Return a row's first `num_tokens` tokens, on the host."""
        return {
            layer: (self._read(self.keys[layer], pages, num_tokens), self._read(self.values[layer], pages, num_tokens))
            for layer in self.keys
        }

    def _read(self, store: torch.Tensor, pages: Sequence[int], num_tokens: int) -> torch.Tensor:
        return self._lines(store)[:, self._slots(pages, num_tokens, store.device)].cpu()

    def _lines(self, store: torch.Tensor) -> torch.Tensor:
        """One layer's part as `[heads, slots, dim]`, without copying."""
        return store.flatten(1, 2) if self._page_dim == 2 else store.flatten(0, 1).transpose(0, 1)

    def _slots(self, pages: Sequence[int], num_tokens: int, device: torch.device) -> torch.Tensor:
        places = torch.arange(num_tokens, device=device)
        return torch.tensor(pages, device=device)[places // self.page_size] * self.page_size + places % self.page_size

    def _first(self, store: torch.Tensor, change: PageChange, page: int) -> torch.Tensor:
        """The tokens of `page` that `change` copies."""
        return store.select(self._page_dim, page).narrow(self._page_dim, 0, change.num_tokens)


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros that take memory where they are written to: on a CPU torch writes its own at once, numpy leaves that."""
    if device.type != "cpu":
        return torch.zeros(size, dtype=dtype, device=device)
    bytes_ = np.zeros((*size[:-1], size[-1] * dtype.itemsize), np.uint8)
    return torch.from_numpy(bytes_).view(dtype)


def _runs(changes: Sequence[PageChange]) -> Iterator[list[PageChange]]:
    """Changes that one operation makes: copies one by one, as the next may read what the last has written."""
    for clears, group in groupby(changes, lambda change: change.source is None):
        run = list(group)
        yield from [run] if clears else ([copy] for copy in run)
