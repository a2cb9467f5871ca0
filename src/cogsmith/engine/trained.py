"""How a model's vectors were made when it was trained: what sentence-transformers wrote beside its weights.

`modules.json` lists the steps from text to vector: a Transformer, a Pooling with a `config.json` in a folder of its
own, perhaps a Normalize. `sentence_bert_config.json` says how a text is cut before. The format is that of
https://github.com/UKPLab/sentence-transformers, of version 2 (a flag for each way of pooling) and of later ones (the
way by name).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from cogsmith.engine.request import Pooling

MODULES = "modules.json"

_FLAGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_NAMES: Mapping[str, str] = {"cls": "cls", "mean": "mean", "max": "max", "lasttoken": "last"}
_STEPS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class Trained:
    """How vectors are made where a request does not say.

    `pooling` is None where the model makes them in a way that is not here; `unknown` says which. `max_length` is how
    many tokens of a text were read in training, None where that is not known. `is_stated` says whether the checkpoint
    tells any of this.
    """

    pooling: Pooling | None = None
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False
    unknown: str | None = None
    is_stated: bool = False


def read(folder: Path, otherwise: Pooling) -> Trained:
    """Read what the checkpoint in `folder` says; `otherwise` is the pooling of one that says nothing."""
    steps = _json(folder / MODULES)
    if not isinstance(steps, list):
        return Trained(otherwise)
    kinds = [str(step.get("type", "")).rpartition(".")[2] for step in steps]
    path = next((step.get("path") for step, kind in zip(steps, kinds, strict=True) if kind == "Pooling"), None)
    cut = _object(folder / "sentence_bert_config.json")
    length = cut.get("max_seq_length")
    pooling = _pooling(_object(folder / str(path) / "config.json")) if path else otherwise
    strange = [f"a {kind} layer" for kind in kinds if kind not in _STEPS]
    if pooling not in get_args(Pooling):
        strange.append(f"{pooling} pooling")
    return Trained(
        pooling=None if strange else pooling,  # type: ignore[arg-type] # it is one of them, or strange
        normalize="Normalize" in kinds,
        max_length=length if isinstance(length, int) else None,
        lowercase=cut.get("do_lower_case") is True,
        unknown=" and ".join(strange) or None,
        is_stated=True,
    )


def _pooling(config: Mapping[str, Any]) -> str:
    """Return the one way of pooling that a Pooling's config names; several at once are told in one word."""
    named = config.get("pooling_mode")
    if isinstance(named, str):
        return _NAMES.get(named, named)
    flags = [way for flag, way in _FLAGS.items() if config.get(flag)]
    return "+".join(flags) or "mean"


def _object(path: Path) -> Mapping[str, Any]:
    found = _json(path)
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
