"""A folder in LLaMA2-Accessory's own format: one shard, with arguments, type and tokenizer beside it.

The names and the layout are those of accessory/util/misc.py, save_checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError
from cogsmith.sources.accessory import folder as names
from cogsmith.sources.accessory.merge import Tensors
from cogsmith.sources.base import Reporter
from cogsmith.sources.importer import Part

if TYPE_CHECKING:
    import torch

WEIGHTS = "consolidated.00-of-01.model.pth"
DELTA = "consolidated.00-of-01.model-diff.pth"


def write_weights(path: Path, tensors: Tensors, dtype: torch.dtype, reporter: Reporter) -> None:
    """Write the tensors as `dtype` into one file, which holds them once in memory.

    Raises ConversionError for numbers that are too large for `dtype`.
    """
    import torch

    made: dict[str, torch.Tensor] = {}
    with reporter.task(f"Writing {path.name}", len(tensors), unit="tensors") as task:
        for name, tensor in tensors.items():
            exact = tensor.make()
            made[f"llma.{name}"] = _rounded(name, exact, dtype)
            task.advance(1)
        torch.save({"model": made}, path)


def write_arguments(folder: Path, arguments: Mapping[str, Any], llama_type: str) -> None:
    """Write config.json and meta.json."""
    for name, content in ((names.CONFIG, arguments), (names.META, {"llama_type": llama_type})):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def copy_tokenizer(folder: Path, parts: list[Part]) -> None:
    """Copy the tokenizer of the last of `parts` that has one."""
    for part in reversed(parts):
        if files := names.tokenizer_files(part.places):
            for name in files:
                shutil.copyfile(part.places[name], folder / name)
            return


def _rounded(name: str, exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    import torch

    # A copy, so that nothing of the mapped files is needed any more.
    rounded = exact.to(dtype).clone(memory_format=torch.contiguous_format)
    if bool(torch.isinf(rounded).any()) and not bool(torch.isinf(exact).any()):
        raise ConversionError(
            f"{name} holds numbers up to {float(exact.abs().max()):.3g}, which {dtype} cannot hold",
            fix="choose another type: --dtype bfloat16 or float32",
        )
    return rounded
