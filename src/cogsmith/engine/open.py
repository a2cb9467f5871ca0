"""Which engine runs a model: the manifest says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cogsmith.engine.base import Engine
from cogsmith.errors import UserError
from cogsmith.manifest import CAUSAL_LM, ENCODER, IMAGE_TEXT, VECTORS, Manifest

if TYPE_CHECKING:
    from cogsmith.engine.images import Images

_VECTORS_BY_CLASS = re.compile(r"(?!.*LMHeadModel$).*(Model|ForMaskedLM)")
"""Classes without a head, and those whose head fills in masks; not GPT2LMHeadModel and the like."""


class Opened(NamedTuple):
    """An engine that runs, the model's tokenizer, None where it has none, and what makes prompts of images."""

    engine: Engine
    tokenizer: Any | None
    images: Images | None = None


def open_engine(settings: Manifest, folder: Path, model_args: Mapping[str, Any]) -> Opened:
    """Load the weights of the work directory `folder` with `model_args`, as its manifest says.

    Only what the engine needs is imported: one of the two is not installed. Raises UserError for what the engine
    cannot be asked, and for classes of the model's own that do not fit.
    """
    checkpoint = folder / settings.checkpoint
    if settings.engine == "vllm":
        if settings.code:
            raise UserError(
                f"vLLM has model classes of its own, and cannot run {settings.code.model}",
                fix='set engine = "transformers" and build this folder again',
            )
        from cogsmith.engine.vllm.open import open_vllm

        return Opened(*open_vllm(checkpoint, model_args, settings.vllm, settings.limits, name=settings.name))
    if settings.task in VECTORS:
        from cogsmith.engine.encoder_engine import EncoderEngine
        from cogsmith.engine.encoder_model import load_encoder

        encoder = load_encoder(checkpoint, model_args, name=settings.name, task=settings.task)
        return Opened(EncoderEngine(encoder, settings.limits), encoder.tokenizer)
    from cogsmith.engine import custom_code
    from cogsmith.engine.loader import load
    from cogsmith.engine.transformers_engine import TransformersEngine

    if settings.code:
        custom_code.register(settings.code, folder, checkpoint)
    with custom_code.explained(settings.code):
        loaded = load(
            checkpoint,
            model_args,
            name=settings.name,
            quant=settings.quant,
            prepack=settings.prepack,
            own_class=settings.code is not None,
            task=settings.task,
        )
        return Opened(TransformersEngine(loaded, settings.limits), loaded.tokenizer, loaded.images)


def task_of(checkpoint: Path) -> str:
    """Tell by what is in a checkpoint folder what its model is for: vectors, images, or to continue text.

    Vectors where sentence-transformers has written there, or config.json names a class without a head, or one whose
    head fills in masks.
    """
    if (checkpoint / "modules.json").is_file():
        return ENCODER
    try:
        stated = msgspec.json.decode((checkpoint / "config.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return CAUSAL_LM
    if "vision_config" in stated:
        return IMAGE_TEXT
    names = stated.get("architectures") or ()
    return ENCODER if any(_VECTORS_BY_CLASS.fullmatch(str(name)) for name in names) else CAUSAL_LM
