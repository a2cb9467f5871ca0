"""Several folders, one after another: a whole checkpoint, then differences to be added and tensors to be replaced.

What LLaMA2-Accessory's `load_tensor_parallel_model_list` does (accessory/util/tensor_parallel.py), with the sum in fp32
and over whole tensors, so that no two folders need the same number of shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

from cogsmith.errors import SourceError
from cogsmith.sources import torchfile
from cogsmith.sources.accessory import folder
from cogsmith.sources.accessory.merge import Merged, Tensors, merge
from cogsmith.sources.accessory.params import Arguments
from cogsmith.sources.base import Reporter
from cogsmith.sources.importer import Part
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

_PREFIX = "llma."
_DROPPED = "rope.freqs"
"""Meta stores the rotary frequencies; every program computes them."""


def stack(parts: Sequence[Part], arguments: Arguments, reporter: Reporter) -> Tensors:
    """Return the tensors of `parts` put one on another, by their names without `llma.`; nothing large is read yet.

    Raises SourceError with every fault of every folder: files cut short, shards that do not fit each other.
    """
    tensors: Tensors = {}
    problems: list[str] = []
    for part in parts:
        found = folder.find(part.places)
        merged = read(part, found, arguments)
        problems += [f"{part.uri}: {problem}" for problem in (*found.problems, *merged.problems)]
        for note in merged.notes:
            reporter.note(f"{part.uri}: {note}")
        if found.family == "diff":
            problems += [f"{part.uri}: {problem}" for problem in _add(tensors, merged.tensors)]
        else:
            tensors.update(merged.tensors)
    if problems:
        raise SourceError("\n".join(problems), fix="fetch the files again, and name the model's arguments as they were")
    return tensors


def read(part: Part, found: folder.Found, arguments: Arguments) -> Merged:
    """Return the whole tensors of one folder."""
    shards: list[Mapping[str, torch.Tensor]] = []
    problems: list[str] = []
    for name in found.shards:
        try:
            shards.append(_load(part.places[name], name))
        except SourceError as error:
            problems.append(error.message)
    # Shards that are not all there would only say again, tensor by tensor, that one is missing.
    return (
        Merged({}, problems, []) if problems or not shards else merge(shards, arguments, deltas=found.family == "diff")
    )


def _load(path: Path, name: str) -> Mapping[str, torch.Tensor]:
    import torch

    content = torchfile.load(path)
    if folder.other_shard(name, saved_as := _saved_as(path)):
        raise SourceError(f"{name} is another shard: it was saved as {saved_as}")
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict):
        raise SourceError(f"{name} does not hold a model's tensors by name")
    named = {str(key).removeprefix(_PREFIX): value for key, value in content.items()}
    named.pop(_DROPPED, None)
    strange = [
        key for key, value in named.items() if not isinstance(value, torch.Tensor) or not value.is_floating_point()
    ]
    if strange or not named:
        what = f"{', '.join(strange[:5])}, which are no tensors of numbers" if strange else "no tensors"
        raise SourceError(f"{name} holds {what}")
    return named


def _saved_as(path: Path) -> str:
    """Return the name that torch.save was given, which it makes the folder of all that lies in the file."""
    with ZipFile(path) as archive:
        return f"{archive.namelist()[0].partition('/')[0]}.pth"


def _add(tensors: Tensors, differences: Tensors) -> list[str]:
    """Add to the tensors of the same name; those that are new are themselves. Return what does not fit."""
    problems = []
    for name, difference in differences.items():
        base = tensors.get(name)
        if base is None:
            tensors[name] = difference
        elif base.shape != difference.shape:
            have, want = list(difference.shape), list(base.shape)
            problems.append(f"{name} is a difference of the shape {have}, and what it is to be added to has {want}")
        else:
            tensors[name] = replace(difference, make=partial(plus, base, difference))
    return problems


def rounded(tensors: Tensors) -> Tensors:
    """Return the tensors with every sum rounded to the type that its difference is stored in.

    So LLaMA2-Accessory stores what it puts together; in most cases these are the very weights that were trained.
    """
    return {name: replace(tensor, make=partial(_round, tensor)) for name, tensor in tensors.items()}


def plus(one: LazyTensor, other: LazyTensor) -> torch.Tensor:
    """Return the sum, computed in fp32."""
    return one.make().float() + other.make().float()


def minus(one: LazyTensor, other: LazyTensor) -> torch.Tensor:
    """Return the difference, computed in fp32."""
    return one.make().float() - other.make().float()


def _round(tensor: LazyTensor) -> torch.Tensor:
    return tensor.make().to(tensor.dtype)
