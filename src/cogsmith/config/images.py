"""What a model's keys must say for one that reads images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cogsmith.config.document import Section
from cogsmith.config.findings import Finding, show
from cogsmith.manifest import IMAGE_TEXT


def check(section: Section) -> Iterator[Finding]:
    """Yield what does not go with images, and what is said of images where the model reads none."""
    if section.get("task") != IMAGE_TEXT:
        if section.get("image_transform") not in (None, "model"):
            yield Finding(
                section.origin("image_transform"),
                "image_transform is given, and the model reads no images",
                f'set task = "{IMAGE_TEXT}", or remove it',
            )
        return
    yield from _only("engine", section.get("engine"), "transformers", section)
    yield from _only("format", section.get("format"), "hf", section)
    code = section.get("code")
    if isinstance(code, dict) and code:
        yield Finding(
            section.origin("code"),
            f"code is for models of texts, and task is {show(IMAGE_TEXT)}",
            "remove code: transformers' own vision-language models are served",
        )
    quant = section.get("quant")
    if isinstance(quant, dict) and quant.get("at") == "build":
        yield Finding(
            section.origin("quant", "at"),
            "a build quantises models of texts only",
            'set quant.at = "load", or remove it',
        )


def _only(key: str, value: Any, wanted: str, section: Section) -> Iterator[Finding]:
    if value not in (None, wanted, "auto"):
        yield Finding(
            section.origin(key),
            f"{key} is {show(value)}, and models that read images have {show(wanted)} only",
            f'set {key} = "{wanted}"',
        )
