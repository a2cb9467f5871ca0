"""`export.onnx`: whether a build writes the model as ONNX too, how and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cogsmith import quant
from cogsmith.config import uri
from cogsmith.config.document import Section
from cogsmith.config.findings import Finding, Refusal, show
from cogsmith.config.model import WORK, OnnxSettings
from cogsmith.config.tables import RawOnnx
from cogsmith.manifest import CAUSAL_LM

_FOLDER = "onnx"
_AT = ("export", "onnx")
_WITHOUT_FORM = (("quant",), ("code",), *(("config", key) for key in (*quant.UPSTREAM, "quantization_config")))
"""What makes a model one that ONNX cannot hold."""


def is_wanted(section: Section) -> bool:
    """Whether the model is to be exported: `export.onnx = true`, or a table."""
    value = section.get(*_AT)
    return value is True or isinstance(value, dict)


def check(section: Section, root: Path) -> Iterator[Finding]:
    """Yield what stands against the export of one model. A folder is relative to `root`."""
    if not is_wanted(section):
        return
    task = section.get("task") or CAUSAL_LM
    if task != CAUSAL_LM:
        yield Finding(section.origin(*_AT), f"ONNX is for models that continue text, and task is {task}", "remove it")
    for keys in _WITHOUT_FORM:
        if section.get(*keys) not in (None, {}, False):
            name = ".".join(keys)
            yield Finding(section.origin(*_AT), f"a model with {name} has no ONNX form", f"remove it, or {name}")
    yield from _place(section, root)


def complete(section: Section, raw: RawOnnx, root: Path) -> OnnxSettings | None:
    """Return what is to be exported, and where; None for nothing. A folder is relative to `root`."""
    if not is_wanted(section):
        return None
    said = raw.model_dump(exclude={"output_folder"})
    place = raw.output_folder or f"{_FOLDER}/{section.name}"
    return OnnxSettings(str(uri.parse_output(place).beneath(root)), **said)


def _place(section: Section, root: Path) -> Iterator[Finding]:
    place: Any = section.get(*_AT, "output_folder")
    if not isinstance(place, str):
        return
    path = section.origin(*_AT, "output_folder")
    if path[0] == "defaults":
        message = f"{show(place)} would hold the graph of every model"
        yield Finding(path, message, f"name it in the models' sections, or leave it out: {_FOLDER}/NAME")
        return
    try:
        target = uri.parse_output(place).beneath(root)
    except Refusal:
        return
    work = (root / WORK).resolve()
    if target.scheme == "path" and Path(target.body).resolve().is_relative_to(work):
        message = f"{show(place)} is inside {work}, which builds write"
        yield Finding(path, message, f"name a folder beside {WORK}/")
