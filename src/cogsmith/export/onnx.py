"""A checkpoint as ONNX: `model.onnx` with its weights beside it, in float32, compared with the model.

The names, the sample and the tolerance are those of MosaicML's `convert_hf_to_onnx.py` (LLM Foundry): inputs
`input_ids` and `attention_mask`, output `output`, the logits.
"""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cogsmith.config.model import OnnxSettings
from cogsmith.errors import MissingExtra
from cogsmith.sources.base import Reporter
from cogsmith.workdir import output

_PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the graph takes. `length` None means the longest text that the model's configuration names.

    With `dynamic`, any number of rows and any length up to that; else just `batch` rows of `length` tokens.
    """

    batch: int = 8
    length: int | None = None
    dynamic: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """What was put at `place`: bytes by relative path. `largest_difference` is None where nothing was compared."""

    place: str
    files: Mapping[str, int]
    batch: int
    length: int
    dynamic: bool
    opset: int
    n_params: int
    largest_difference: float | None

    def summary(self) -> str:
        """Return what it takes and how close it is, for a person."""
        taken = (
            f"any rows x up to {self.length} tokens" if self.dynamic else f"{self.batch} rows x {self.length} tokens"
        )
        difference = self.largest_difference
        compared = "not compared" if difference is None else f"largest difference from the model {difference:.3g}"
        return f"n_params={self.n_params}, {taken}, opset {self.opset}, {compared}"


def require_packages() -> None:
    """Raise MissingExtra where something is not installed that an export takes."""
    if not all(importlib.util.find_spec(package) for package in _PACKAGES):
        raise MissingExtra("engine,onnx", "Exporting to ONNX")


def export_as(folder: Path, settings: OnnxSettings, reporter: Reporter) -> Exported:
    """Write the model of `folder` as export.onnx of config.toml says. Raises as `export` does."""
    shape = Shape(batch=settings.batch_size, length=settings.max_seq_len, dynamic=settings.dynamic)
    return export(
        *(folder, settings.output, shape),
        opset=settings.opset,
        verify=settings.verify,
        force=settings.force,
        reporter=reporter,
    )


def export(
    folder: Path,
    place: str,
    shape: Shape | None = None,
    *,
    opset: int | None = None,
    verify: bool = True,
    force: bool = False,
    reporter: Reporter,
) -> Exported:
    """Write the model of the work directory or checkpoint `folder` to the canonical URI `place`.

    The files are there whole, and with `verify` compared with the model, or not at all. Raises UserError for a model
    that has no such form, for a length that is missing or too long, where memory or disk would not do, and where
    something is at `place` already, unless `force`; ConversionError where the exporter fails, or the graph computes
    something else; MissingExtra; and what a store raises.
    """
    require_packages()
    from cogsmith.export import agreement, graph, room, subject

    shape = shape or Shape()
    chosen_opset = graph.checked_opset(opset)
    found = subject.read(folder)
    subject.require_apart(place, folder)
    length = subject.length(found, shape.length, dynamic=shape.dynamic)
    output.require_free(place, force=force)
    room.require(found.description, shape.batch, length, output.staging_folder(place), verify=verify)
    difference: float | None = None

    def make(stage: Path) -> None:
        nonlocal difference
        with reporter.task(f"Loading {folder.name}"):
            model, vocabulary = graph.load(found)
        samples = agreement.samples(shape.batch, length, vocabulary, dynamic=shape.dynamic)
        expected = [graph.logits(model, sample) for sample in samples] if verify else []
        with reporter.task("Exporting"):
            graph.write(model, samples[0], stage, length, dynamic=shape.dynamic, opset=chosen_opset)
        del model
        gc.collect()  # a model is full of circles, and the runtime needs the room
        if verify:
            with reporter.task("Comparing with the model in onnxruntime"):
                difference = agreement.largest_difference(stage / graph.FILE_NAME, samples, expected)

    saved = output.save_made(make, place, force=force, reporter=reporter)
    n_params = found.description.n_params
    return Exported(saved.place, saved.files, shape.batch, length, shape.dynamic, chosen_opset, n_params, difference)
