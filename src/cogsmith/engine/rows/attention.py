"""Attention over pages: what the packed back-end has transformers call in every layer.

Registered under a name of our own, as transformers' `AttentionInterface` provides. What a layer hands over is either
understood or refused: an architecture whose attention says more than this function knows raises, and runs through
another back-end. The step's plan and pool come by a context variable: not all models hand arguments down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from cogsmith.engine.rows.pool import LayerShape

NAME = "cogsmith_pages"

_HARMLESS = frozenset({"position_ids", "cache_position", "use_cache", "past_key_values", "position_embeddings"})
"""Arguments that models hand to attention for the masks or caches of others: the plan says all of it."""


@dataclass(frozen=True, slots=True)
class Heads:
    """How a layer wants its scores: scaled, capped, with sinks `[query heads]`, over `window` tokens."""

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class States:
    """The new tokens' queries, keys and values, `[tokens, heads, dim]` each."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


class Step(Protocol):
    """What attention does in one forward pass."""

    def attend(self, layer: int, states: States, heads: Heads) -> torch.Tensor:
        """Return `[tokens, query heads, value_dim]`."""


_STEP: ContextVar[Step] = ContextVar("step")


@contextmanager
def during(step: Step, config: Any) -> Iterator[None]:
    """Have attention of the model of `config` do `step`. Afterwards the model is what it was, and runs plainly.

    Layers ask their config at each call which function they are to call.
    """
    before = config._attn_implementation
    token = _STEP.set(step)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _STEP.reset(token)


def paged_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention function: `[1, heads, tokens, dim]` each in, `[1, tokens, query heads, dim]` out.

    Raises TypeError for what it does not know, so that no architecture is computed wrongly in silence.
    """
    unknown = [
        name for name, said in others.items() if name not in _HARMLESS and said is not None and said is not False
    ]
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if unknown or attention_mask is not None or dropout or not causal or query.shape[0] != 1:
        raise TypeError(f"attention that is not known here: {unknown or 'a mask, dropout or many rows'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = Heads(scale, sliding_window, softcap, s_aux)
    states = States(*(part[0].transpose(0, 1) for part in (query, key, value)))
    return _STEP.get().attend(module.layer_idx, states, heads)[None], None


@dataclass(slots=True)
class ShapeProbe:
    """A step that only notes what each layer keeps, and over how many tokens it attends."""

    shapes: dict[int, LayerShape] = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)

    def attend(self, layer: int, states: States, heads: Heads) -> torch.Tensor:
        """Note the layer's shape. Raises TypeError where a layer comes twice, as those do that share keys."""
        (_, num_heads, key_dim), value_dim = states.key.shape, states.value.shape[2]
        if layer in self.shapes:
            raise TypeError("layers share keys and values")
        self.shapes[layer] = LayerShape(num_heads, key_dim, value_dim, states.key.dtype, states.key.device)
        self.windows[layer] = heads.window
        return states.query.new_zeros(*states.query.shape[:2], value_dim)
