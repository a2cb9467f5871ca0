"""What a pickle's classes and functions become: their names and arguments, and no behaviour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Inert:
    """A class or function that a pickle names, or what came of calling it. Nothing of it exists here.

    `args` is None for the class or function itself, and the arguments for what it made. `state` is what the object's
    `__setstate__` would have got, `items` what was appended to it, `pairs` what was set in it by key.
    """

    __slots__ = ("args", "items", "module", "name", "pairs", "state")

    def __init__(self, module: str, name: str, args: tuple[Any, ...] | None = None) -> None:
        self.module = module
        self.name = name
        self.args = args
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []

    @property
    def path(self) -> str:
        """The whole name, such as `torch.torch_version.TorchVersion`."""
        return f"{self.module}.{self.name}"

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        """Return the stand-in for what the call would have made."""
        return Inert(self.module, self.name, (*args, kwargs) if kwargs else args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Keep `item`."""
        self.items.append(item)

    def extend(self, items: Iterable[Any]) -> None:
        """Keep `items`."""
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        # A list of pairs, because nothing says that the key can be hashed.
        self.pairs.append((key, value))

    def __repr__(self) -> str:
        return f"<{'name' if self.args is None else 'object'} {self.path}>"
