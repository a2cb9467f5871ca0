"""Which ids a GENERATE may not draw: those outside its mask, and end tokens before its `min_tokens`."""

from __future__ import annotations

import numpy as np

from cogsmith.engine.base import EngineInfo


def excluded_ids(allow: bytes | None, info: EngineInfo, ends: frozenset[int] = frozenset()) -> np.ndarray | None:
    """Return the ids with probability 0, bool `[head_size]`, True for what is banned; None for nothing.

    A mask, `allow`, bans all ids that the tokenizer cannot decode too. The tokens `ends` are banned, unless nothing
    else is allowed.
    """
    banned = None if allow is None else _outside(allow, info)
    return _with_ends(banned, info, ends) if ends else banned


def _outside(allow: bytes, info: EngineInfo) -> np.ndarray:
    banned = np.ones(info.head_size, bool)
    bits = np.unpackbits(np.frombuffer(allow, np.uint8), count=info.vocab_size, bitorder="little")
    banned[: info.vocab_size] = bits == 0
    return banned


def _with_ends(banned: np.ndarray | None, info: EngineInfo, ends: frozenset[int]) -> np.ndarray | None:
    both = np.zeros(info.head_size, bool) if banned is None else banned.copy()
    both[[token for token in ends if token < info.head_size]] = True
    return banned if both[: info.vocab_size].all() else both
