"""Which ids a GENERATE may not draw: those outside its mask, and end tokens before its `min_tokens`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import GenerateRequest


@dataclass(slots=True)
class Banned:
    """Ids with probability 0: `early` while fewer than `min_tokens` tokens are there, `later` from then on.

    Each is a bool tensor `[head_size]`, True for what is banned, or None for nothing.
    """

    early: torch.Tensor | None = None
    later: torch.Tensor | None = None
    min_tokens: int = 0

    def apply(self, scores: torch.Tensor, num_generated: int) -> None:
        """Set the scores `[head_size]` of banned ids to minus infinity, in place."""
        if self.early is not None and num_generated < self.min_tokens:
            self.early = self.early.to(scores.device)  # once; the next step finds it there
            scores.masked_fill_(self.early, -torch.inf)
        elif self.later is not None:
            self.later = self.later.to(scores.device)
            scores.masked_fill_(self.later, -torch.inf)


def banned_ids(request: GenerateRequest, info: EngineInfo) -> Banned:
    """Return what `request` bans. Made with numpy, for the reason that `sampler.dense_bias` gives.

    A mask bans all ids that the tokenizer cannot decode too. End tokens stay allowed where nothing else is.
    """
    later = None if request.allow is None else _outside(request.allow, info)
    early = _with_ends(later, info) if request.min_tokens and info.eos_ids else later
    return Banned(_tensor(early), _tensor(later), request.min_tokens)


def _outside(allow: bytes, info: EngineInfo) -> np.ndarray:
    banned = np.ones(info.head_size, bool)
    bits = np.unpackbits(np.frombuffer(allow, np.uint8), count=info.vocab_size, bitorder="little")
    banned[: info.vocab_size] = bits == 0
    return banned


def _with_ends(banned: np.ndarray | None, info: EngineInfo) -> np.ndarray | None:
    both = np.zeros(info.head_size, bool) if banned is None else banned.copy()
    both[[token for token in info.eos_ids if token < info.head_size]] = True
    return banned if both[: info.vocab_size].all() else both


def _tensor(banned: np.ndarray | None) -> torch.Tensor | None:
    return None if banned is None else torch.from_numpy(banned)
