"""What MODEL_INFO answers."""

from __future__ import annotations

from typing import Any

from cogsmith.engine.base import EngineInfo


def model_info(info: EngineInfo) -> dict[str, Any]:
    """Describe a served model in JSON's types.

    `lmtp` and `features` tell a client which protocol it may speak; `tokenizer` is a hash of the vocabulary, equal
    where ids mean the same.
    """
    return {
        "lmtp": "1.0",
        "features": [],
        "model": info.model,
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
        **info.details,
    }
