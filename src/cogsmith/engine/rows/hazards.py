"""What may go wrong with a model in long texts only, and so escapes the start-up test: told from its config.

The names are those of transformers' configs, as of version 5.23.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cogsmith.engine.loader import states_layers


@dataclass(frozen=True, slots=True)
class Hazards:
    """Up to where a model of some config may be run in which way. Lengths are in tokens; None is no border.

    `windows`: over how many tokens each layer attends, None in a layer for all; None altogether where a layer is of
    a kind that only transformers' own masks know, so that the packed back-end must not be used. That one must be given
    exactly these by the layers: some architectures have their window in the mask alone.

    `batched_until`: the widest batch in which a row may be padded. Llama 4 counts positions from the padding.

    `one_regime_until`: the longest text that is computed as its beginnings were; see `regimes` for longer ones.

    `defined_until`: the longest text for which there is a right answer: beyond, plain passes over a text and over its
    beginnings, or over the same text twice, differ.
    """

    windows: tuple[int | None, ...] | None = None
    batched_until: int | None = None
    one_regime_until: int | None = None
    defined_until: int | None = None


def hazards(config: Any) -> Hazards:
    """Return what to beware of in a model of this transformers config."""
    text = config.get_text_config()
    ropes = list(_rope_parameters(text))
    return Hazards(
        windows=_windows(text),
        batched_until=min(_scaled_by_column(text), default=None),
        one_regime_until=min(_longrope_borders(text, ropes), default=None),
        defined_until=min(_last_defined(text, ropes), default=None),
    )


def _windows(config: Any) -> tuple[int | None, ...] | None:
    from transformers.cache_utils import get_layer_types_and_kwargs

    if not states_layers(config):
        return None
    kinds, arguments = get_layer_types_and_kwargs(config)
    if not set(kinds) <= {"full_attention", "sliding_attention"}:
        return None
    return tuple(kwargs.get("sliding_window") for kwargs in arguments)


def _scaled_by_column(config: Any) -> Iterator[int]:
    """Yield lengths from which queries are scaled by their place, counted in columns of the batch."""
    if getattr(config, "attn_temperature_tuning", False):
        # Llama 4: floor((position + 1) / floor_scale) is 0 before.
        yield int(config.floor_scale) - 1
    floor = getattr(config, "log_scaling_n_floor", None)
    if floor is not None:
        yield int(floor)


def _longrope_borders(config: Any, ropes: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    """Yield the length beyond which a text gets the long angles, for all its tokens."""
    stated = getattr(config, "original_max_position_embeddings", None)
    for rope in ropes:
        border = rope.get("original_max_position_embeddings", stated)
        if rope.get("rope_type") == "longrope" and border is not None:
            yield int(border)


def _last_defined(config: Any, ropes: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    """Yield lengths beyond which a plain pass over a text says something else than one over its beginning."""
    if any(rope.get("rope_type") == "dynamic" for rope in ropes):
        # Other angles for each length beyond, and kept for the next text unless that is a short one.
        yield int(config.max_position_embeddings)
    if getattr(config, "keep_window_size", None) is not None:
        # Doge: of a longer text, each token sees this many keys, chosen among later ones too.
        yield int(config.keep_window_size)


def _rope_parameters(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rotary parameters of each kind of layer; most configs have them once for all."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in parameters:
        yield parameters
    else:
        yield from (part for part in parameters.values() if isinstance(part, Mapping))
