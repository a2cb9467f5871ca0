"""Differences between two checkpoints: made of a base and what was trained from it, and put on the base again.

LLaMA2-Accessory gives away what it trained from Meta's weights as such differences; this does what its
accessory/tools/weight_operate.py does, over whole tensors, so that the numbers of shards need not be the same:

    apply      base[k] + delta[k] where both have k; what only one has is as it is there
    extract    tuned[k] - base[k] where both have k; what only the tuned has is as it is there
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cogsmith.config.model import Precision
from cogsmith.errors import SourceError
from cogsmith.sources.accessory import folder as names
from cogsmith.sources.accessory import write
from cogsmith.sources.accessory.importer import AccessoryImporter, read_arguments, read_type
from cogsmith.sources.accessory.merge import Tensors
from cogsmith.sources.accessory.stack import minus, stack
from cogsmith.sources.base import Reporter
from cogsmith.sources.importer import Options, Part
from cogsmith.sources.verify import verify_folder

if TYPE_CHECKING:
    import torch

DType = Literal["float16", "bfloat16", "float32"]
Form = Literal["accessory", "hf"]

_PRECISIONS: dict[DType, Precision] = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


def apply(
    base: Path, delta: Path, out: Path, *, reporter: Reporter, to: Form = "accessory", dtype: DType = "float16"
) -> None:
    """Write `base` with `delta` on it into the empty folder `out`: one shard in Accessory's format, or Hugging Face's.

    Sums are computed in fp32, and stored as `dtype`. Raises SourceError for folders that are not a base and its delta,
    ConversionError for numbers that `dtype` cannot hold.
    """
    parts = [_part(base), _part(delta)]
    _expect(parts[0], ("accessory", "meta"), "the base: whole weights, not differences")
    _expect(parts[1], ("diff",), "a delta: files called consolidated.NN-of-MM.model-diff.pth")
    if to == "hf":
        AccessoryImporter().convert(parts, Options(output_precision=_PRECISIONS[dtype]), out, reporter)
        verify_folder(out, reporter=reporter)
        return
    tensors = stack(parts, read_arguments(parts, Options()), reporter)
    write.write_weights(out / write.WEIGHTS, tensors, _torch_dtype(dtype), reporter)
    _write_beside(out, parts)


def extract(base: Path, tuned: Path, out: Path, *, reporter: Reporter, dtype: DType = "float16") -> None:
    """Write what `tuned` has over `base` into the empty folder `out`, as one shard of differences. See `apply`."""
    parts = [_part(base), _part(tuned)]
    _expect(parts[0], ("accessory", "meta"), "the base: whole weights, not differences")
    _expect(parts[1], ("accessory", "meta"), "the tuned weights: whole ones, not differences")
    arguments = read_arguments(parts, Options())
    before, after = (stack([part], arguments, reporter) for part in parts)
    write.write_weights(out / write.DELTA, _subtract(after, before), _torch_dtype(dtype), reporter)
    _write_beside(out, parts)


def _write_beside(folder: Path, parts: list[Part]) -> None:
    write.write_arguments(folder, read_arguments(parts, Options()), read_type(parts, Options()))
    write.copy_tokenizer(folder, parts)


def _subtract(tensors: Tensors, base: Tensors) -> Tensors:
    common = tensors.keys() & base.keys()
    problems = [
        f"{name} is {list(tensors[name].shape)} in the tuned weights and {list(base[name].shape)} in the base"
        for name in sorted(common)
        if tensors[name].shape != base[name].shape
    ]
    ours, theirs = _layer_parts(tensors), _layer_parts(base)
    if (ours and theirs and ours.isdisjoint(theirs)) or not (common or ours):
        problems = ["their layers are not made of the same parts: they are not of one kind of model"]
    if problems:
        raise SourceError("\n".join(problems), fix="name the base that the weights were trained from")
    return {
        name: replace(tensor, make=partial(minus, tensor, base[name])) if name in base else tensor
        for name, tensor in tensors.items()
    }


def _layer_parts(tensors: Tensors) -> set[str]:
    """Return what stands after `layers.N.`, such as attention."""
    return {name.split(".")[2] for name in tensors if name.startswith("layers.")}


def _part(folder: Path) -> Part:
    """Return the files at the top of a folder on this machine. Raises SourceError."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder", fix="name a folder with consolidated.* files")
    return Part(str(folder), {path.name: path.resolve() for path in sorted(folder.iterdir()) if path.is_file()})


def _expect(part: Part, families: Sequence[names.Family], what: str) -> None:
    found = names.find(part.places)
    if found.problems:
        raise SourceError("\n".join(f"{part.uri}: {problem}" for problem in found.problems), fix=f"name {what}")
    if found.family not in families:
        raise SourceError(f"{part.uri} holds {found.shards[0]}", fix=f"this should be {what}")


def _torch_dtype(dtype: DType) -> torch.dtype:
    import torch

    return getattr(torch, dtype)  # type: ignore[no-any-return]
