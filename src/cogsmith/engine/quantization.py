"""Models whose linear layers bitsandbytes quantised: how they are loaded, what they compute, how much they hold.

    8 bits    W8A16 unless an outlier threshold is named: the weights are whole numbers with a scale a row, activations
              stay as they are. With a threshold it is bitsandbytes' LLM.int8(), which rounds activations too: there
              the tokens of one pass share their outlier columns, so that a number depends on what else is in the pass.
    4 bits    as bitsandbytes computes them.

LLM.int8(): https://arxiv.org/abs/2208.07339
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.nn.functional import linear

from cogsmith.errors import MissingExtra, UserError
from cogsmith.quant import Quant, from_upstream, kept_modules, upstream_keys, without_upstream

_BITSANDBYTES = "bitsandbytes"


def asked(model_args: Mapping[str, Any], quant: Quant | None) -> tuple[dict[str, Any], Quant | None]:
    """Return the arguments for `from_pretrained` without the upstream keys, and what is asked for in all.

    `quant` is the work directory's; upstream keys among `model_args` win over it. Raises UserError for contradictions.
    """
    keys = upstream_keys(model_args)
    rest = without_upstream(model_args)
    if not keys:
        return rest, quant
    if quant and not keys.keys() & {"load_in_4bit", "load_in_8bit"}:
        keys |= {f"load_in_{quant.bits}bit": True}
    return rest, from_upstream(keys)


def arguments(config: Any, quant: Quant | None, dtype: str) -> dict[str, Any]:
    """Return what `from_pretrained` is to be told beside the checkpoint's `config`; nothing where that says it all.

    Raises UserError where the checkpoint is already quantised otherwise than `quant` asks, or where the machine cannot
    do it, and MissingExtra without bitsandbytes.
    """
    stated = _stated(config)
    if configuration(config, quant, dtype) is None:
        return {}
    if quant and quant.require_cuda and not torch.cuda.is_available():
        raise UserError("quant.require_cuda is true, and there is no CUDA device here", fix="use a machine with a GPU")
    if quant and stated and not stated.get(f"load_in_{quant.bits}bit"):
        raise UserError(
            f"the weights are quantised already ({stated.get('quant_method')}), and not to {quant.bits} bits",
            fix="start from the original weights",
        )
    return {} if stated else {"quantization_config": configuration(config, quant, dtype)}


def configuration(config: Any, quant: Quant | None, dtype: str) -> Any | None:
    """Return the `BitsAndBytesConfig` that a checkpoint states or `quant` asks for; None where neither does.

    Raises MissingExtra without bitsandbytes.
    """
    from transformers import BitsAndBytesConfig

    stated = _stated(config)
    if stated.get("quant_method") == _BITSANDBYTES:
        fields = dict(stated)
    elif quant:
        fields = quant.to_bitsandbytes(dtype)
        if quant.skip_modules:
            # Named modules replace those that are kept by default, the output head among them.
            fields["llm_int8_skip_modules"] += kept_modules(config)
    else:
        return None
    if importlib.util.find_spec(_BITSANDBYTES) is None:
        raise MissingExtra("quant", "A quantised model")
    # It warns of every matrix product of LLM.int8() that its input is not float16.
    logging.getLogger(_BITSANDBYTES).setLevel(logging.ERROR)
    return BitsAndBytesConfig.from_dict(fields)


def prepare(model: Any, quant: Quant | None, dtype: str) -> None:
    """Make a freshly loaded model's quantised layers compute as this engine promises, on any machine.

    `dtype` is the one that the model is loaded in: 4-bit layers compute in it where `quant` names none.
    """
    for layer in _layers(model):
        if _is_four_bit(layer):
            _prepare_four_bit(layer, quant, dtype)
        elif not layer.state.has_fp16_weights and (quant is None or quant.outlier_threshold is None):
            layer.forward = _Int8Weights(layer)


def couples_rows(model: Any) -> bool:
    """Whether a token's numbers depend on the other tokens of its pass: rows must then run alone, prompts whole."""
    return any(not _is_four_bit(layer) and not isinstance(layer.forward, _Int8Weights) for layer in _layers(model))


def footprint_bytes(model: Any) -> int:
    """Return the bytes of a model's weights and buffers, the quantised layers' scales and tables included."""
    return int(model.get_memory_footprint()) + sum(_state_bytes(layer) for layer in _layers(model))


def quantise_skeleton(model: Any, settings: Any) -> tuple[int, int]:
    """Give a model without memory (torch's meta device) its quantised layers; return the bytes that it will hold.

    First what transformers' `get_memory_footprint` will say, then the same with the scales. `settings` is its
    `configuration`.
    """
    from transformers.quantizers import AutoHfQuantizer

    quantised = int(model.get_memory_footprint())
    # The layers that take their places are made in torch's own type, whichever the model's is.
    unpacked = {name: _bytes([module.weight]) for name, module in model.named_modules() if _has_weight(module)}
    quantiser = AutoHfQuantizer.from_config(settings, pre_quantized=False)
    quantiser.preprocess_model(model, device_map=None)
    layers = {*_layers(model)}
    for name, layer in model.named_modules():
        if layer in layers:
            quantised += _packed_bytes(layer, settings, unpacked[name]) - unpacked[name]
    return quantised, quantised + sum(_scale_bytes(layer, settings) for layer in layers)


class _Int8Weights:
    """A layer's forward pass: its weights as bitsandbytes stored them, activations untouched.

    The same as after transformers' `model.dequantize()`, but that only one layer's weights are ever expanded at once.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        layer = self._layer
        if layer.weight.CB is not None:
            layer.init_8bit_state()
        values, scales = layer.state.CB, layer.state.SCB
        weight = torch.empty_like(values, dtype=states.dtype)
        # In one pass over the memory, rounding once.
        torch.mul(values, scales.unsqueeze(1) / 127, out=weight)
        return linear(states, weight, None if layer.bias is None else layer.bias.to(states.dtype))


def _stated(config: Any) -> Mapping[str, Any]:
    """What a checkpoint's config says of its weights; empty where they are not quantised."""
    own = getattr(config, "quantization_config", None) or getattr(config.get_text_config(), "quantization_config", None)
    return own if isinstance(own, dict) else {}


def _prepare_four_bit(layer: Any, quant: Quant | None, dtype: str) -> None:
    if quant:
        layer.compute_dtype = getattr(torch, quant.compute_dtype or dtype)
    # Its kernel for AVX512-BF16 takes no other shapes and fails in the first forward pass.
    fits = layer.out_features % 32 == 0 and layer.in_features % layer.weight.quant_state.blocksize == 0
    layer.support_avx512bf16_for_cpu = layer.support_avx512bf16_for_cpu and fits


def _layers(model: Any) -> Iterator[Any]:
    """The layers that bitsandbytes computes."""
    if not getattr(model, "is_quantized", False) or importlib.util.find_spec(_BITSANDBYTES) is None:
        return
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    yield from (module for module in model.modules() if isinstance(module, Linear4bit | Linear8bitLt))


def _is_four_bit(layer: Any) -> bool:
    return hasattr(layer, "compute_dtype")


def _state_bytes(layer: Any) -> int:
    if not _is_four_bit(layer):
        return _bytes((layer.weight.SCB, layer.state.SCB))
    state = layer.weight.quant_state
    inner = getattr(state, "state2", None)
    offset = getattr(state, "offset", None)
    return _bytes((state.absmax, state.code, offset, *((inner.absmax, inner.code) if inner else ())))


def _has_weight(module: Any) -> bool:
    return isinstance(getattr(module, "weight", None), torch.Tensor)


def _packed_bytes(layer: Any, settings: Any, unpacked: int) -> int:
    """The bytes of a layer's weight once it is quantised, of `unpacked` before."""
    weights: int = layer.in_features * layer.out_features
    if not _is_four_bit(layer):
        return unpacked if settings.llm_int8_has_fp16_weight else weights
    size: int = settings.bnb_4bit_quant_storage.itemsize
    return math.ceil(weights / 2 / size) * size


def _scale_bytes(layer: Any, settings: Any) -> int:
    """The bytes of a quantised layer's scales: one for 64 packed values, or for a row of 8 bits."""
    if not _is_four_bit(layer):
        return 0 if settings.llm_int8_has_fp16_weight else 4 * int(layer.out_features)
    weights: int = layer.in_features * layer.out_features
    blocks, table = math.ceil(weights / 64), 4 * 16
    if not settings.bnb_4bit_use_double_quant:
        return table + 4 * blocks
    # Scales of 8 bits, a scale for 256 of them, their table and their mean.
    return table + blocks + 4 * math.ceil(blocks / 256) + 4 * 256 + 4


def _bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    return sum(tensor.nelement() * tensor.element_size() for tensor in tensors if tensor is not None)
