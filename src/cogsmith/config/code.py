"""What `code` must say: files, and the classes in them, for an engine that can run them."""

from __future__ import annotations

from collections.abc import Iterator

from cogsmith.config.document import Section
from cogsmith.config.findings import Finding

_CLASSES = ("model_type", "config", "model")


def check(section: Section) -> Iterator[Finding]:
    """Yield what is missing or contradictory about a model's own code."""
    code = section.get("code")
    if not isinstance(code, dict) or not code:
        return
    missing = [f"code.{key}" for key in _CLASSES if key not in code]
    if not code.get("path") and not code.get("files"):
        missing.insert(0, "code.path (files on this machine) or code.files (of the source)")
    if missing:
        yield Finding(
            section.origin("code"),
            f"a model's own code needs {', '.join(missing)} too",
            "add what is missing, or remove code",
        )
    if section.get("engine") == "vllm":
        message = "a class of the model's own is run by the default engine only: vLLM has classes of its own"
        yield Finding(section.origin("code"), message, 'remove code, or engine = "vllm"')
    if section.get("quant", "at") == "build":
        message = "a model with code of its own is not quantised at build, where that code would have to run"
        yield Finding(section.origin("quant", "at"), message, 'write "load"')
    if section.get("format") == "gguf":
        message = "a GGUF file's weights become a model that transformers has, which needs no code"
        yield Finding(section.origin("code"), message, "remove code")
