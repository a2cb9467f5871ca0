"""Which engine runs a model: the manifest says it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cogsmith.engine.base import Engine
from cogsmith.manifest import Manifest


class Opened(NamedTuple):
    """An engine that runs, and the model's tokenizer, None where it has none."""

    engine: Engine
    tokenizer: Any | None


def open_engine(settings: Manifest, folder: Path, model_args: Mapping[str, Any]) -> Opened:
    """Load the weights in `folder`, a work directory's checkpoint, with `model_args`, as its manifest says.

    Only what the engine needs is imported: one of the two is not installed.
    """
    if settings.engine == "vllm":
        from cogsmith.engine.vllm.open import open_vllm

        return Opened(*open_vllm(folder, model_args, settings.vllm, settings.limits, name=settings.name))
    from cogsmith.engine.loader import load
    from cogsmith.engine.transformers_engine import TransformersEngine

    loaded = load(folder, model_args, name=settings.name, quant=settings.quant, prepack=settings.prepack)
    return Opened(TransformersEngine(loaded, settings.limits), loaded.tokenizer)
