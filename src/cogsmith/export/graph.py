"""A causal language model as an ONNX graph of its logits, by torch's exporter (`torch.onnx.export(dynamo=True)`)."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cogsmith.engine.loader import load as load_checkpoint
from cogsmith.errors import ConversionError, UserError
from cogsmith.export.subject import Subject

FILE_NAME = "model.onnx"
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "output"

DEFAULT_OPSET = 20
OPSETS = range(18, 24)
"""What torch 2.13's exporter writes; it would take others, and write one of these without a word."""


class Sample(NamedTuple):
    """One call of the model: ids and a mask, int64 of shape [rows, tokens]."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor


class _Logits(torch.nn.Module):
    """The model as a function of two tensors to one: no cache goes in or comes out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, return_dict=True
        ).logits
        return logits


def checked_opset(asked: int | None) -> int:
    """Return the operator set to write. Raises UserError for one that the exporter does not know."""
    if asked is not None and asked not in OPSETS:
        raise UserError(f"--opset {asked} is not one that the exporter writes", fix=f"give {OPSETS[0]} to {OPSETS[-1]}")
    return asked or DEFAULT_OPSET


def load(subject: Subject) -> tuple[Any, int]:
    """Return the model in float32 on the CPU, and how many ids there are, from 0.

    With eager attention: the fused kind gives other numbers for the padding before a prompt than the operators that it
    is exported as, and ALiBi has none.
    """
    arguments = {**subject.model_args, "dtype": "float32", "device_map": "cpu", "attn_implementation": "eager"}
    loaded = load_checkpoint(subject.checkpoint, arguments, name=subject.checkpoint.name, prepack=False)
    vocabulary = loaded.head_size if loaded.tokenizer is None else min(len(loaded.tokenizer), loaded.head_size)
    return _Logits(loaded.model).eval(), vocabulary


def logits(model: Any, sample: Sample) -> torch.Tensor:
    """Return the model's logits, float32 of shape [rows, tokens, head]."""
    with torch.no_grad():
        found: torch.Tensor = model(*sample)
    return found


def write(model: Any, sample: Sample, folder: Path, length: int, *, dynamic: bool, opset: int) -> None:
    """Write model.onnx and model.onnx.data. The sample's shape is the graph's, unless it is `dynamic`.

    Then rows are any number, and tokens up to `length`. Raises ConversionError where the exporter cannot do it.
    """
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                model,
                (),
                kwargs=sample._asdict(),
                dynamo=True,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=_dimensions(length) if dynamic else None,
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ConversionError(
            f"torch's exporter has no ONNX for this model: {_first_line(error)}",
            fix="try another --opset, or fixed shapes; some architectures have no ONNX form",
        ) from error
    if program is None:
        raise ConversionError("torch's exporter gave nothing")
    _forget_origins(program.model)
    program.save(str(folder / FILE_NAME), external_data=True)


def _dimensions(length: int) -> dict[str, dict[int, Any]]:
    rows, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("sequence", min=1, max=length)
    return {name: {0: rows, 1: tokens} for name in INPUTS}


def _forget_origins(model: Any) -> None:
    """Drop what the exporter notes of each operator: lines of Python, with the paths of this machine."""
    for holder in (model.graph, *model.functions.values()):
        for node in holder.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        holder.metadata_props.clear()
    model.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from listing packages that it could do with, and what it means to change in itself."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
