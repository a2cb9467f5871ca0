"""What vLLM is started with: the checkpoint, our own sampler, and the user's options."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from vllm.engine.arg_utils import AsyncEngineArgs

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.loader import trusts_code
from cogsmith.engine.vllm import wire
from cogsmith.errors import UserError
from cogsmith.manifest import Limits

# The processor is written for the interface of vLLM's V1 model runner, and V2 refuses it. Nothing leaves the machine.
_ENVIRONMENT = {"VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_NO_USAGE_STATS": "1"}
# Without a GPU, vLLM compiles the model and a count in its sampler with a C++ compiler, which containers have not.
_CPU_ENVIRONMENT = {"TORCH_COMPILE_DISABLE": "1"}


def engine_args(
    folder: Path, model_args: Mapping[str, Any], options: Mapping[str, Any], limits: Limits, info: EngineInfo
) -> AsyncEngineArgs:
    """Return vLLM's arguments. `options` are its own names; what our engine rests on cannot be changed by them.

    Raises UserError for an option that this vLLM has not, and for what `model_args` say that vLLM has no place for.
    """
    _check_options(options)
    own = {
        "model": str(folder),
        "dtype": info.dtype,
        "trust_remote_code": trusts_code(model_args),
        "max_model_len": info.max_context,
        "max_num_seqs": limits.max_batch_size,
        "kv_cache_memory_bytes": limits.kv_cache_bytes,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "logits_processors": ["cogsmith.engine.vllm.processor:Processor"],
        "logprobs_mode": "processed_logits",
        "max_logprobs": -1,
        "additional_config": {wire.KEY: msgspec.to_builtins(info)},
        "disable_log_stats": True,
    }
    defaults = {"enforce_eager": True} if is_cpu() else {}
    return AsyncEngineArgs(**{**defaults, **options, **own})


def prepare_environment() -> None:
    """Set what vLLM reads from the environment, here and in the processes that it starts."""
    for name, value in {**_ENVIRONMENT, **(_CPU_ENVIRONMENT if is_cpu() else {})}.items():
        os.environ.setdefault(name, value)


def is_cpu() -> bool:
    """Whether this vLLM was built for CPUs."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _check_options(options: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"vllm.{name} is no option of this vLLM", fix=f"write vllm.{near[0]}" if near else "remove it"
            )
