"""What a checkpoint is, told from its configuration: no weight is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from cogsmith.engine import quantization
from cogsmith.engine.footprints import footprints
from cogsmith.engine.loader import asked_dtype, class_for, read_config, trusts_code
from cogsmith.errors import UserError
from cogsmith.manifest import CAUSAL_LM, VECTORS, Code
from cogsmith.quant import Quant

_KINDS = {
    "attention": re.compile(r"Attention|Attn"),
    "mlp": re.compile(r"MLP|Mlp|MoE|Moe|FFN|FeedForward"),
    "norms": re.compile(r"Norm$"),
}


@dataclass(frozen=True, slots=True)
class Description:
    """A model's size and shape.

    `key_value_heads` is None where they are as many as `heads`. `embedding` is what makes vectors of ids, `head` what
    makes logits of the last layer's output; `layer`, `attention`, `mlp` and `norms` are the classes of a layer and of
    what is in it. `tree` is the tree of modules, as it is once loaded. What only the model's own code would tell is
    None.

    `memory_footprint` is what transformers' `get_memory_footprint` says of the loaded model, and `footprints` what it
    would say of it in other types and bits, where that was asked for. `footprint_bytes` is the same before
    quantisation; `quantized_footprint_bytes` adds the scales, which transformers leaves out. None where nothing
    quantises it.
    """

    architecture: str
    n_params: int
    memory_footprint: int
    footprints: Mapping[str, int]
    footprint_bytes: int
    quantized_footprint_bytes: int | None
    dtype: str
    layers: int
    hidden_size: int
    heads: int
    key_value_heads: int | None
    vocab_size: int
    context: int | None
    embedding: str | None
    layer: str | None
    attention: str | None
    mlp: str | None
    norms: str | None
    head: str | None
    quantization: str | None
    tree: str | None


def describe(
    folder: Path,
    model_args: Mapping[str, Any],
    quant: Quant | None = None,
    *,
    task: str = CAUSAL_LM,
    in_other_types: bool = False,
) -> Description:
    """Describe the checkpoint in `folder`, in its own dtype unless `model_args` asks for another.

    For a `task` other than "causal-lm" that is the model without its head. With `in_other_types` its footprints in
    these are told too. The model is built on torch's meta device, for each of them anew, which has shapes and no
    memory. Raises MissingExtra where it is quantised and bitsandbytes is missing.
    """
    config = read_config(folder, model_args)
    dtype = _dtype(model_args, getattr(config, "dtype", None))

    def skeleton(dtype: torch.dtype) -> Any:
        with torch.device("meta"):
            return class_for(task, config).from_config(config, dtype=dtype, trust_remote_code=trusts_code(model_args))

    model = skeleton(dtype)
    _, quant = quantization.asked(model_args, quant)
    settings = quantization.configuration(config, quant, str(dtype).removeprefix("torch."))
    n_params, footprint = sum(parameter.numel() for parameter in model.parameters()), model.get_memory_footprint()
    shape, parts = config.get_text_config(), _parts(model)
    packed, with_scales = (footprint, None) if settings is None else quantization.quantise_skeleton(model, settings)
    return Description(
        architecture=type(model).__name__,
        n_params=n_params,
        memory_footprint=packed,
        footprints=footprints(skeleton, dtype, in_bits=task not in VECTORS) if in_other_types else {},
        footprint_bytes=footprint,
        quantized_footprint_bytes=with_scales,
        dtype=str(model.dtype).removeprefix("torch."),
        layers=getattr(shape, "num_hidden_layers", 0),
        hidden_size=getattr(shape, "hidden_size", 0),
        heads=getattr(shape, "num_attention_heads", 0) or 0,
        key_value_heads=getattr(shape, "num_key_value_heads", None),
        vocab_size=getattr(shape, "vocab_size", 0),
        context=getattr(shape, "max_position_embeddings", None),
        **parts,
        quantization=_quantization(settings, quant),
        tree=str(model),
    )


def describe_stored(folder: Path, model_args: Mapping[str, Any], code: Code, quant: Quant | None = None) -> Description:
    """Describe the checkpoint in `folder` of a model with `code` of its own, as `describe` does, without running that.

    What is told is what the weights and config.json say; the tree of modules is not known. Raises UserError for weights
    that are not safetensors.
    """
    shape = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
    n_params = _stored_parameters(folder)
    dtype = _dtype(model_args, shape.get("dtype") or shape.get("torch_dtype"))
    footprint = n_params * dtype.itemsize
    return Description(
        architecture=code.model.rpartition(".")[2],
        n_params=n_params,
        memory_footprint=footprint,
        footprints={},
        footprint_bytes=footprint,
        quantized_footprint_bytes=quant.weight_bytes(n_params, shape, 8 * dtype.itemsize) if quant else None,
        dtype=str(dtype).removeprefix("torch."),
        layers=shape.get("num_hidden_layers", 0),
        hidden_size=shape.get("hidden_size", 0),
        heads=shape.get("num_attention_heads", 0),
        key_value_heads=shape.get("num_key_value_heads"),
        vocab_size=shape.get("vocab_size", 0),
        context=shape.get("max_position_embeddings"),
        embedding=None,
        layer=None,
        attention=None,
        mlp=None,
        norms=None,
        head=None,
        quantization=f"{quant}, at {quant.at}" if quant else None,
        tree=None,
    )


def _parts(model: Any) -> dict[str, str | None]:
    """Name the classes of the first layer and of what is in it, by what transformers' classes are called."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    layer = next((layers[0] for layers in lists if count and len(layers) == count), None)
    inside = [] if layer is None else [type(module).__name__ for module in list(layer.modules())[1:]]
    classes = {name: list(dict.fromkeys(filter(kind.search, inside))) for name, kind in _KINDS.items()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    return {
        "embedding": str(embedding),
        "layer": None if layer is None else type(layer).__name__,
        "attention": next(iter(classes["attention"]), None),
        "mlp": next(iter(classes["mlp"]), None),
        "norms": ", ".join(classes["norms"]) or None,
        "head": None if head is None else str(head) + (", the embedding's weights" if tied else ""),
    }


def _stored_parameters(folder: Path) -> int:
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no safetensors", fix="convert the weights to safetensors")
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as stored:
            total += sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    return total


def _dtype(model_args: Mapping[str, Any], own: Any) -> torch.dtype:
    """Return the dtype that is asked for, else the checkpoint's `own`. Raises UserError for a name that is none."""
    asked = asked_dtype(model_args) or "auto"
    name = str(own or "float32") if asked == "auto" else str(asked)
    found = getattr(torch, name.removeprefix("torch."), None)
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise UserError(
            f"config.dtype = {name!r} is no floating-point type of torch", fix='write one such as "bfloat16", or "auto"'
        )
    return found


def _quantization(settings: Any | None, quant: Quant | None) -> str | None:
    if settings is None or quant is None:
        return None if settings is None else f"{settings.quantization_method()}, as the weights came"
    return f"{quant}, at {quant.at}"
