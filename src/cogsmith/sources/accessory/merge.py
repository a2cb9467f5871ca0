"""Along which dimension a tensor is cut into shards, and the whole made of them.

The cuts are those of fairscale's parallel layers as LLaMA2-Accessory uses them (accessory/util/tensor_parallel.py):
a column-parallel layer is cut along its outputs, a row-parallel one along its inputs, an embedding along its width.
What is not cut is in every shard, and the same. Names tell the layer; no type's names are another's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from cogsmith.sources.accessory import params
from cogsmith.sources.accessory.params import Arguments
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

Tensors = dict[str, LazyTensor]
"""Whole tensors by their name without `llma.`. What `make` returns may be of a wider type than `dtype`, to be rounded
once."""

Axis = int | Literal["replica", "owned", "experts", "embedding", "key_value", "single"]
"""A dimension; "replica": whole in every shard; "owned": whole in one of them; "experts": `_experts`; "embedding" and
"key_value": by the shapes; "single": cannot be in several shards."""

LARGE_DIFFERENCE = 0.1
"""Replicas that differ by more than this part of their largest number are not of one model: training's rounding
makes them drift by far less."""

_COLUMN, _ROW = r"(attention\.w[qkv]|feed_forward\.w[13])", r"(attention\.wo|feed_forward\.w2)"
_AXES: tuple[tuple[str, Axis], ...] = (
    (r"(tok|word)_embeddings\.weight", "embedding"),
    (r"output\.weight", 0),
    (r"(norm|ln_f)\.(weight|bias)", "replica"),
    (r"layers\.\d+\.(attention_norm|ffn_norm|ln_attn|ln_mlp|input_layernorm|post_attention_layernorm)\.\w+", "replica"),
    (rf"layers\.\d+\.{_COLUMN}\.(weight|bias|lora_b\.weight)", 0),
    (rf"layers\.\d+\.{_COLUMN}\.lora_a\.weight", "replica"),
    (rf"layers\.\d+\.{_ROW}\.(weight|lora_a\.weight)", 1),
    (rf"layers\.\d+\.{_ROW}\.(bias|lora_b\.weight)", "replica"),
    (r"layers\.\d+\.feed_forward\.gate\.weight", "replica"),
    (r"layers\.\d+\.feed_forward\.experts\.\d+\..+", "owned"),
    (r"layers\.\d+\.feed_forward\.w[123]", "experts"),
    (r"layers\.\d+\.(self_attention\.wq|mlp\.dense_h_to_4h)\.(weight|bias)", 0),
    (r"layers\.\d+\.self_attention\.w[kv]\.(weight|bias)", "key_value"),
    (r"layers\.\d+\.(self_attention\.dense|mlp\.dense_4h_to_h)\.weight", 1),
    (r"layers\.\d+\.(self_attention\.dense|mlp\.dense_4h_to_h)\.bias", "replica"),
    (r"(embedding|head)\.weight|layers\.\d+\.(mixer|mlp)\.(Wqkv|out_proj|w[123])\.(weight|bias)", "single"),
    (r"layers\.\d+\.norm[12]\.(weight|bias)", "single"),
)


@dataclass(slots=True)
class Merged:
    """Whole tensors, what is wrong with them, and what is only worth a word."""

    tensors: Tensors
    problems: list[str]
    notes: list[str]


def axis_of(name: str) -> Axis | None:
    """Return how the tensor called `name` (without `llma.`) is cut; None for a name that no supported type has."""
    return next((axis for pattern, axis in _AXES if re.fullmatch(pattern, name)), None)


def merge(shards: Sequence[Mapping[str, torch.Tensor]], arguments: Arguments, *, deltas: bool = False) -> Merged:
    """Put the tensors of `shards`, in the order of their ranks, together: nothing large is read yet.

    `deltas`: they are differences, which are small, so that how much replicas differ says nothing.
    """
    merged = Merged({}, [], [])
    strange: list[str] = []
    for name in dict.fromkeys(name for shard in shards for name in shard):
        pieces = [shard[name] for shard in shards if name in shard]
        axis = axis_of(name)
        if axis is None:
            strange.append(name)
        elif fault := _fault(pieces, len(shards), axis):
            merged.problems.append(f"{name} {fault}")
        else:
            axis = _resolved(axis, pieces, shards[0], arguments)
            _add(merged, name, pieces, axis, arguments)
            if axis in ("replica", "owned"):
                _compare(merged, name, pieces, LARGE_DIFFERENCE if not deltas else float("inf"))
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        merged.problems.append(f"it holds tensors of no supported type: {', '.join(strange[:5])}{more}")
    return merged


def _fault(pieces: Sequence[torch.Tensor], shards: int, axis: Axis) -> str | None:
    if axis == "single" and shards > 1:
        return "is in several shards, which LLaMA2-Accessory's InternLM cannot run"
    if axis != "owned" and len(pieces) < shards:
        return f"is in {len(pieces)} of {shards} shards"
    if not pieces[0].ndim:
        return "is a single number"
    if len({piece.dtype for piece in pieces}) > 1:
        return f"is {' and '.join(str(piece.dtype).removeprefix('torch.') for piece in pieces)} in different shards"
    if len({tuple(piece.shape) for piece in pieces}) > 1:
        shapes = " and ".join(str(list(piece.shape)) for piece in pieces)
        return f"is {shapes} in different shards, which cannot be of one checkpoint"
    return None


def _resolved(
    axis: Axis, pieces: Sequence[torch.Tensor], shard: Mapping[str, torch.Tensor], arguments: Arguments
) -> Axis:
    """Decide by shapes and arguments where the name alone does not tell."""
    if len(pieces) == 1:
        return "replica"
    if axis == "embedding":
        # Meta's Llama 3 cuts the vocabulary where its predecessors cut the width.
        norm = shard.get("norm.weight")
        return 0 if norm is not None and norm.ndim and pieces[0].shape[-1] == norm.shape[0] else 1
    if axis == "key_value":
        return 0 if not arguments.get("multi_query", True) or _cut_heads(pieces, arguments) else "replica"
    return axis


def _cut_heads(pieces: Sequence[torch.Tensor], arguments: Arguments) -> bool:
    """Tell whether Falcon's key and value heads are in shards. The program's own have one head, in every shard."""
    heads, count = arguments.get("num_kv_heads"), arguments.get("num_attention_heads")
    if not arguments.get("new_decoder_architecture", True) or not heads or heads == 1 or not count:
        return False
    width = arguments.get("hidden_size", 0) // count
    return bool(len(pieces) * pieces[0].shape[0] == heads * width)


def _add(merged: Merged, name: str, pieces: Sequence[torch.Tensor], axis: Axis, arguments: Arguments) -> None:
    import torch

    first = pieces[0]
    shape = list(first.shape)
    if axis in ("replica", "owned"):
        make = partial(_same, first)
    elif axis == "experts":
        experts, _ = params.experts(arguments)
        if shape[0] % experts:
            merged.problems.append(f"{name} is {shape}, which is no {experts} experts (moe.num_experts)")
            return
        shape[0] *= len(pieces)
        make = partial(_experts, pieces, experts)
    else:
        dimension = int(axis)
        if dimension >= len(shape):
            merged.problems.append(f"{name} is {shape} in a shard, which cannot be put together")
            return
        shape[dimension] *= len(pieces)
        make = partial(torch.cat, list(pieces), dimension)
    merged.tensors[name] = LazyTensor(name, first.dtype, tuple(shape), make)


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _experts(pieces: Sequence[torch.Tensor], experts: int) -> torch.Tensor:
    """Each shard holds a part of every expert's hidden units: [experts, hidden / shards, width], flattened."""
    import torch

    parts = [piece.reshape(experts, -1, piece.shape[-1]) for piece in pieces]
    return torch.cat(parts, dim=1).reshape(-1, pieces[0].shape[-1])


def _compare(merged: Merged, name: str, pieces: Sequence[torch.Tensor], bound: float) -> None:
    """Compare replicas: what differs by more than `bound` of the largest number is refused."""
    first = pieces[0].float()
    difference = max((float((piece.float() - first).abs().max()) for piece in pieces[1:] if piece.numel()), default=0.0)
    if difference == 0:
        return
    differs = f"should be the same in every shard, and differs by {difference:.2g}"
    # Written so that NaN, which compares false, is refused too.
    if difference <= bound * float(first.abs().max()):
        merged.notes.append(f"{name} {differs}; the first shard's is taken")
    else:
        merged.problems.append(f"{name} {differs}: the shards are not of one checkpoint")
