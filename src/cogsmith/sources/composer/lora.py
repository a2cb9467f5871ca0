"""LoRA adapters, added into the weights that they adapt.

A run with peft keeps W as it was and trains A [r, in] and B [out, r] beside it: W + scale · B·A is used, where scale
is alpha / r, or alpha / √r under rslora. Names and rules are those of peft (peft/tuners/lora/layer.py, 0.21.2):

    base_model.model.X.base_layer.weight     W (without `base_layer` before peft 0.6)
    base_model.model.X.lora_A.ADAPTER.weight, X.lora_B.ADAPTER.weight, X.lora_B.ADAPTER.bias
    base_model.model.X.lora_embedding_A.ADAPTER [r, tokens], X.lora_embedding_B.ADAPTER [width, r]
    base_model.model.X.modules_to_save.ADAPTER.…    trained whole, in place of X.original_module.…

https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError
from cogsmith.sources.composer.weights import Weights, renamed
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."
_ADAPTED = re.compile(r"(?P<module>.+)\.(?P<part>lora_\w+)\.(?P<adapter>[^.]+)(?:\.(?P<leaf>weight|bias))?")
_WHOLE = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<adapter>[^.]+)\.(?P<leaf>.+)")
_REPLACED = ".original_module."
_LINEAR = ("lora_A", "lora_B")
_EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
_MERGE = "merge the adapter in the training program (merge_and_unload of peft), and save the model"

_NO_PLAIN_SUM = ("use_dora", "use_qalora", "layer_replication", "target_parameters", "trainable_token_indices",
                 "alora_invocation_tokens", "arrow_config", "use_bdlora", "kasa_config", "velora_config")  # fmt: skip
"""Settings of peft with which an adapter is more than W + scale · B·A."""

Parts = dict[str, LazyTensor]
"""What there is of one module's adapter, by its name: "lora_A", "lora_B", "lora_B.bias", …."""


def fold(weights: Weights, peft_config: Mapping[str, Any], subject: str, base: Weights | None = None) -> Weights:
    """Return the weights of the model alone, with the adapter in `weights` added in.

    `base` is the model that it was trained on, for an adapter that was saved alone. Raises ConversionError for what is
    not LoRA's plain sum, for several adapters, and where the adapted weights are in neither.
    """
    _refuse_others(peft_config)
    inner = {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
    adapters, names = _adapters(inner)
    if len(names) > 1:
        raise ConversionError(f"{subject} has several adapters: {', '.join(sorted(names))}", fix=_MERGE)
    plain = _without_adapters(inner)
    if base and any(f"{module}.weight" not in plain for module in adapters):
        plain = _named_as_in(base, adapters) | plain
    for module, parts in adapters.items():
        name = f"{module}.weight"
        if name not in plain:
            named = peft_config.get("base_model_name_or_path") or "that it was trained on"
            raise ConversionError(
                f"{subject} holds the adapter alone, and not {module} of the model {named}",
                fix="name the model's folder before it: source = [BASE, CHECKPOINT]; or save with "
                "should_save_peft_only=False in HuggingFaceModel, or merge the adapter into its model",
            )
        plain[name] = _summed(plain[name], module, parts, peft_config)
        if bias := parts.get("lora_B.bias"):
            own = plain.get(f"{module}.bias")
            if own is None:
                raise ConversionError(f"the adapter of {module} has a bias, and the model none there", fix=_MERGE)
            plain[own.name] = _with_bias(own, bias, _scale(module, parts, peft_config))
    return plain


def _named_as_in(base: Weights, adapters: Mapping[str, Parts]) -> Weights:
    """Return the base's tensors by the names that the adapters know.

    A base that was saved without its head, as the Hub's gpt2 was, has names without the first part.
    """
    module = next(iter(adapters))
    prefix, _, rest = module.partition(".")
    if f"{module}.weight" in base or f"{rest}.weight" not in base:
        return dict(base)
    return {f"{prefix}.{name}": renamed(tensor, f"{prefix}.{name}") for name, tensor in base.items()}


def _refuse_others(peft_config: Mapping[str, Any]) -> None:
    kind = str(peft_config.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        raise ConversionError(
            f"the run trained an adapter of the type {kind}, and only LORA can be added in", fix=_MERGE
        )
    if settings := [name for name in _NO_PLAIN_SUM if peft_config.get(name)]:
        raise ConversionError(f"the adapter has {', '.join(settings)}, which is no plain sum of weights", fix=_MERGE)


def _adapters(weights: Weights) -> tuple[dict[str, Parts], set[str]]:
    """Return the adapters' tensors module by module, and the adapters' names."""
    adapters: dict[str, Parts] = defaultdict(dict)
    names = {match["adapter"] for name in weights if (match := _WHOLE.fullmatch(name))}
    for name, tensor in weights.items():
        if not (match := _ADAPTED.fullmatch(name)):
            continue
        part = match["part"] + (".bias" if match["leaf"] == "bias" else "")
        if part not in (*_LINEAR, *_EMBEDDING, "lora_B.bias"):
            raise ConversionError(f"{name} is no part of a plain sum of weights", fix=_MERGE)
        names.add(match["adapter"])
        adapters[match["module"]][part] = tensor
    return adapters, names


def _without_adapters(weights: Weights) -> Weights:
    """Return the weights beside the adapters, by the names that they have in the model alone."""
    plain = {}
    for name, tensor in weights.items():
        if _ADAPTED.fullmatch(name) or _REPLACED in f".{name}":
            continue
        whole = _WHOLE.fullmatch(name)
        own = f"{whole['module']}.{whole['leaf']}" if whole else name.replace(".base_layer.", ".")
        plain[own] = renamed(tensor, own)
    return plain


def _summed(base: LazyTensor, module: str, parts: Parts, peft_config: Mapping[str, Any]) -> LazyTensor:
    """Return W + scale · B·A, rounded once: to fp32 or, for weights in fp64, not at all."""
    import torch

    of_linear = all(part in parts for part in _LINEAR)
    if not of_linear and not all(part in parts for part in _EMBEDDING):
        raise ConversionError(f"the adapter of {module} has only {', '.join(parts)}", fix="save the checkpoint again")
    down, up = (parts[part] for part in (_LINEAR if of_linear else _EMBEDDING))
    turned = _is_turned(base, module, down, up, by_rule=not of_linear or bool(peft_config.get("fan_in_fan_out")))
    scale = _scale(module, parts, peft_config)

    dtype = torch.promote_types(base.dtype, torch.float32)

    def make() -> torch.Tensor:
        delta = (up.make().double() @ down.make().double()).mul_(scale)
        return (base.make().double() + (delta.T if turned else delta)).to(dtype)

    return LazyTensor(base.name, dtype, base.shape, make)


def _is_turned(base: LazyTensor, module: str, down: LazyTensor, up: LazyTensor, *, by_rule: bool) -> bool:
    """Say whether W is [in, out], as GPT-2's layers and embeddings are: by its shape or, in a square, `by_rule`."""
    if len(down.shape) == len(up.shape) == 2 and down.shape[0] == up.shape[1]:
        straight = (up.shape[0], down.shape[1])
        if base.shape == straight[::-1] != straight:
            return True
        if base.shape == straight:
            return by_rule and straight[0] == straight[1]
    raise ConversionError(
        f"the adapter of {module} has the shapes {list(down.shape)} and {list(up.shape)}, "
        f"which do not fit its weights' {list(base.shape)}",
        fix=_MERGE,
    )


def _scale(module: str, parts: Parts, peft_config: Mapping[str, Any]) -> float:
    down = parts.get(_LINEAR[0]) or parts[_EMBEDDING[0]]
    rank = down.shape[0]
    alpha = _alpha(module, peft_config)
    return alpha / math.sqrt(rank) if peft_config.get("use_rslora") else alpha / rank


def _alpha(module: str, peft_config: Mapping[str, Any]) -> float:
    """Return lora_alpha or, where one fits, the alpha of a pattern: the end of a module's name."""
    for pattern, alpha in (peft_config.get("alpha_pattern") or {}).items():
        if not re.fullmatch(r"[\w.]+", pattern):
            raise ConversionError(f"the adapter's alpha_pattern {pattern!r} is no module's name", fix=_MERGE)
        if f".{module}".endswith(f".{pattern}"):
            return float(alpha)
    return float(peft_config["lora_alpha"])


def _with_bias(base: LazyTensor, bias: LazyTensor, scale: float) -> LazyTensor:
    return LazyTensor(base.name, base.dtype, base.shape, lambda: base.make() + bias.make().to(base.dtype) * scale)
