"""A model's arguments, from LLaMA2-Accessory's config.json or Meta's params.json, and what they are in config.json.

Accessory writes every field of its ModelArgs, with null for a default; Meta writes some. Several files are merged from
left to right, key by key. The fields and defaults are those of accessory/model/LLM/*.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogsmith.errors import SourceError

Arguments = Mapping[str, Any]

DEFAULT_MAX_SEQ_LEN = 4096
"""What LLaMA2-Accessory's `from_pretrained` takes where nothing is said."""

_KNOWN = frozenset(
    {
        "dim", "hidden_dim", "head_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of",
        "ffn_dim_multiplier", "norm_eps", "rope_theta", "rope_scaling", "max_batch_size", "max_seq_len",
        "lora_rank", "bias_tuning", "norm_tuning", "moe", "load_balancing_weight",
        "num_layers", "hidden_size", "num_attention_heads", "mlp_ratio", "drop_rate", "layer_norm_epsilon",
        "norm_type", "use_scaled_init", "use_swiglu",
        "attention_dropout", "hidden_dropout", "bias", "multi_query", "new_decoder_architecture", "parallel_attn",
        "num_kv_heads", "initializer_range",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Position:
    """How a model sees positions: the base of its rotary waves, a factor on them, and how many there are."""

    theta: float
    scaling: float | None
    count: int

    def fields(self) -> dict[str, Any]:
        """Return config.json's fields. Accessory multiplies positions by `scaling`; transformers divides them."""
        scaled = {"rope_scaling": {"rope_type": "linear", "factor": 1 / self.scaling}} if self.scaling else {}
        return {"rope_theta": self.theta, "max_position_embeddings": self.count, **scaled}


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file. Raises SourceError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {error}", fix="fetch or write the file again") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} is not a JSON object", fix="it should name the model's arguments, such as dim")
    return content


def merge(files: Sequence[Path]) -> dict[str, Any]:
    """Return the arguments in `files`, a later one before an earlier, without those that are null.

    A null takes back what an earlier file said: it stands for the default. Raises SourceError for arguments that no
    supported type has, since they would change what the model computes.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged.update(read_json(file))
    stated = {key: value for key, value in merged.items() if value is not None}
    if strange := sorted(key for key, value in stated.items() if key not in _KNOWN and value is not False):
        raise SourceError(
            f"{', '.join(str(file) for file in files)}: arguments that are not known: {', '.join(strange)}",
            fix="remove them if the model does without; a model that needs them cannot be imported",
        )
    return stated


def integer(arguments: Arguments, key: str, default: int) -> int:
    """Return a count that is at least 1. Raises SourceError for anything else."""
    value = arguments.get(key, default)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 1:
        raise SourceError(f"{key} is {value!r} in the model's arguments", fix="it should be a whole number above 0")
    return int(value)


def number(arguments: Arguments, key: str, default: float) -> float:
    """Return a number above 0. Raises SourceError for anything else."""
    value = arguments.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise SourceError(f"{key} is {value!r} in the model's arguments", fix="it should be a number above 0")
    return float(value)


def position(arguments: Arguments, theta: float, max_seq_len: int | None) -> Position:
    """Return how positions are seen. `theta` is the type's default, `max_seq_len` the user's. Raises SourceError."""
    scaling = number(arguments, "rope_scaling", 1.0)
    count = max_seq_len or integer(arguments, "max_seq_len", DEFAULT_MAX_SEQ_LEN)
    return Position(number(arguments, "rope_theta", theta), None if scaling == 1 else scaling, count)


def experts(arguments: Arguments) -> tuple[int, int]:
    """Return how many experts a layer has, and how many a token goes to. Raises SourceError."""
    stated = arguments.get("moe", {})
    if not isinstance(stated, dict):
        raise SourceError(f"moe is {stated!r} in the model's arguments", fix='it should be {"num_experts": 8, …}')
    count, chosen = integer(stated, "num_experts", 8), integer(stated, "num_experts_per_tok", 2)
    if chosen > count:
        raise SourceError(f"moe asks for {chosen} of {count} experts", fix="check moe in the model's arguments")
    return count, chosen


def heads(arguments: Arguments, width: int, count: int, key_value: int) -> int:
    """Return the width of a head. Raises SourceError where the numbers of heads do not divide what they share."""
    if width % count or count % key_value or width // count % 2:
        raise SourceError(
            f"a width of {width} does not make {count} heads over {key_value} for keys and values",
            fix="check dim, n_heads and n_kv_heads in the model's arguments",
        )
    return width // count


def up_to_multiple(size: int, step: int) -> int:
    """Round `size` up to a multiple of `step`."""
    return (size + step - 1) // step * step
