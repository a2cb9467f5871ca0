"""What a model's keys must say for the task that it is to do."""

from __future__ import annotations

from collections.abc import Iterator

from cogsmith import quant
from cogsmith.config.document import Section
from cogsmith.config.findings import Finding
from cogsmith.manifest import DECODER, ENCODER, VECTORS

_FOR_TOKENS = (
    ("quant",),
    ("prepack",),
    ("code",),
    ("limits", "max_tokens"),
    ("limits", "kv_cache_bytes"),
    *(("config", key) for key in (*quant.UPSTREAM, "quantization_config")),
)
"""Keys that only a model which continues text has a use for."""

_NOT_ENCODERS = ("gguf", "accessory")
"""Formats that hold models which continue text, and no encoders."""


def check(section: Section) -> Iterator[Finding]:
    """Yield what a model that gives vectors cannot be told."""
    task = section.get("task")
    if task not in VECTORS:
        return
    if section.get("engine") == "vllm":
        message = f"task is {task}, and vLLM is here for models that continue text"
        yield Finding(section.origin("engine"), message, 'set engine = "transformers"')
    for keys in _FOR_TOKENS:
        if section.get(*keys) not in (None, {}, False):
            message = f"{'.'.join(keys)} is for models that continue text, and task is {task}"
            yield Finding(section.origin(*keys), message, "remove it")
    format_ = section.get("format")
    if task == ENCODER and format_ in _NOT_ENCODERS:
        message = f"format is {format_}, which holds models that continue text, and task is {task}"
        yield Finding(section.origin("format"), message, f'set task = "{DECODER}" for its hidden states')
