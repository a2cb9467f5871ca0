"""Cogsmith: open language models in Cog containers, held by their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cogsmith.ask import generate as generate
    from cogsmith.client.connect import connect as connect
    from cogsmith.gateway.serve import serve as serve

__version__ = "0.1.0"

_LAZY = {"connect": "cogsmith.client", "generate": "cogsmith.ask", "serve": "cogsmith.gateway.serve"}


def __getattr__(name: str) -> object:
    """Import what is asked for: in a container, none of it is there."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
