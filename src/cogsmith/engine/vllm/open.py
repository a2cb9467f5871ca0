"""From a checkpoint folder to an engine that runs it on vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cogsmith.engine.loader import trusts_code
from cogsmith.engine.model_tokenizer import load_tokenizer, with_padding
from cogsmith.engine.vllm import facts, options
from cogsmith.engine.vllm.vllm_engine import VLLMEngine
from cogsmith.manifest import Limits


def open_vllm(
    folder: Path, model_args: Mapping[str, Any], vllm_options: Mapping[str, Any], limits: Limits, *, name: str
) -> tuple[VLLMEngine, Any | None]:
    """Start vLLM on the checkpoint in `folder`; return the engine and the tokenizer, None where there is none.

    Raises UserError for what vLLM cannot be asked.
    """
    options.prepare_environment()
    tokenizer = with_padding(load_tokenizer(folder, trust=trusts_code(model_args)))
    device = "cpu" if options.is_cpu() else "cuda"
    info = facts.read(folder, model_args, limits, tokenizer, name=name, device=device)
    args = options.engine_args(folder, model_args, vllm_options, limits, info)
    return VLLMEngine(args, info, limits, tokenizer), tokenizer
