"""What MODEL_INFO answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cogsmith
from cogsmith.engine.base import EngineInfo
from cogsmith.errors import RequestError
from cogsmith.lmtp import BatchLimits, tokenizer_digest
from cogsmith.manifest import CAUSAL_LM
from cogsmith.predictor.tokenizer import tokenizer_files

_FEATURES_OF_VECTORS = ("cancel", "deadline_ms", "embed", "tokenizer")
_FEATURES = (
    *("allow", "cancel", "constraint", "deadline_ms", "define", "eos_ids", "logprob_ids", "min_tokens"),
    *("n", "options", "seed", "stop", "tokenizer", "usage"),
)


def model_info(info: EngineInfo, limits: BatchLimits, tokenizer: Any | None) -> dict[str, Any]:
    """Describe a served model in JSON's types.

    `lmtp` and `features` tell a client which protocol it may speak, `limits` how much it may send at once; `tokenizer`
    is a hash of the vocabulary, equal where ids mean the same, `tokenizer_files` one of what TOKENIZER answers.
    """
    return {
        "lmtp": "1.1",
        "features": list(_FEATURES if info.task == CAUSAL_LM else _FEATURES_OF_VECTORS),
        "limits": {
            "max_operations": limits.max_operations,
            "max_branches": limits.max_branches,
            "max_batch_bytes": limits.max_bytes,
        },
        "model": info.model,
        "task": info.task,
        "engine": info.engine,
        "vocab_size": info.vocab_size,
        "head_size": info.head_size,
        "max_context": info.max_context,
        "eos_ids": sorted(info.eos_ids),
        "bos_id": info.bos_id,
        "parameters": info.parameters,
        "layers": info.layers,
        "footprint_bytes": info.footprint_bytes,
        "dtype": info.dtype,
        "device": info.device,
        "versions": dict(_versions()),
        "tokenizer_files": _tokenizer_files(tokenizer),
        **info.details,
    }


def _tokenizer_files(tokenizer: Any | None) -> str | None:
    try:
        return tokenizer_digest(*tokenizer_files(tokenizer))
    except RequestError:
        return None


@functools.cache
def _versions() -> Mapping[str, str | None]:
    return {"cogsmith": cogsmith.__version__, "transformers": _installed("transformers"), "torch": _installed("torch")}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
