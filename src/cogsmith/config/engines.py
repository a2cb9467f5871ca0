"""What a model's keys must say for the engine that is to run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cogsmith.config.document import Section
from cogsmith.config.findings import Finding, show

_FOR_VLLM = ("dtype", "torch_dtype", "trust_remote_code")
"""Arguments of `from_pretrained` that vLLM has too."""

_ELSEWHERE: Mapping[str, str] = {
    "model": "source",
    "tokenizer": "source",
    "dtype": "config.dtype",
    "trust_remote_code": "config.trust_remote_code",
    "max_model_len": "limits.max_context",
    "max_num_seqs": "limits.max_batch_size",
    "kv_cache_memory_bytes": "limits.kv_cache_bytes",
}
"""Options of vLLM that have a key for every engine."""

_OURS = (
    "additional_config",
    "generation_config",
    "logits_processors",
    "logprobs_mode",
    "max_logprobs",
    "skip_tokenizer_init",
    "speculative_config",
)
"""Options of vLLM that what LMTP promises rests on."""


def check(section: Section) -> Iterator[Finding]:
    """Yield what the engine of one model cannot do, or does by other keys."""
    if section.get("engine") == "vllm":
        yield from _machine(section)
        yield from _weights(section)
        yield from _options(section)
    elif _table(section, "vllm"):
        yield Finding(
            section.origin("vllm"), "the options of vllm are given, and the engine is another", 'set engine = "vllm"'
        )


def _machine(section: Section) -> Iterator[Finding]:
    if section.get("cog", "gpu") is False:
        yield Finding(
            section.origin("cog", "gpu"),
            "the vLLM of a container runs on GPUs only",
            'set cog.gpu = true, or engine = "transformers"',
        )
    if section.get("cog", "python") == "3.10":
        yield Finding(section.origin("cog", "python"), "vLLM needs Python 3.11 or newer", 'set cog.python = "3.11"')


def _weights(section: Section) -> Iterator[Finding]:
    if _table(section, "quant"):
        yield Finding(
            section.origin("quant"),
            "quant is for the default engine: vLLM takes weights as they are",
            "remove it, and name weights that come quantised, as FP8, AWQ or GPTQ",
        )
    if section.get("prepack") is not None:
        yield Finding(
            section.origin("prepack"), "prepack is for the default engine: vLLM lays weights out itself", "remove it"
        )
    for key in _table(section, "config"):
        if key not in _FOR_VLLM:
            yield Finding(
                section.origin("config", key),
                f"{key} is an argument of from_pretrained, which vLLM does not call",
                f"remove it; vLLM takes {', '.join(_FOR_VLLM)} here, and its own options below vllm",
            )


def _options(section: Section) -> Iterator[Finding]:
    for key, value in _table(section, "vllm").items():
        if key in _ELSEWHERE:
            message = f"vllm.{key} = {show(value)} is said by {_ELSEWHERE[key]}"
            yield Finding(section.origin("vllm", key), message, f"set {_ELSEWHERE[key]}")
        elif key in _OURS:
            message = f"vllm.{key} is set by the engine, whose numbers depend on it"
            yield Finding(section.origin("vllm", key), message, "remove it")


def _table(section: Section, key: str) -> Mapping[str, Any]:
    table = section.get(key)
    return table if isinstance(table, dict) else {}
