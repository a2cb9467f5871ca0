"""MosaicML's own models, as models that transformers has: MosaicGPT of early 2023, and MPT, which came of it.

    with ALiBi and no biases           MptForCausalLM
    with learned positions             GPT2LMHeadModel, whose linear layers keep their weights turned, as [in, out]

Both have one matrix for queries, keys and values, the exact GELU, and LayerNorms with 1e-5. Their names differ:

    MosaicGPT  ln_1   ln_2   mlp.mlp_up    mlp.mlp_down   ln_f
    MPT        norm_1 norm_2 ffn.up_proj   ffn.down_proj  norm_f

Source: examples/llm/src/models/mosaic_gpt of github.com/mosaicml/examples v0.0.4, llmfoundry/models/mpt of llm-foundry
0.1.0 to 0.22.0. Transformers' MptForCausalLM reads no more of its config than is checked here: its MLP is four times
as wide, its ALiBi has a maximum of 8, whatever config.json says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError
from cogsmith.sources.composer.checkpoint import Checkpoint
from cogsmith.sources.composer.config import is_wrapped
from cogsmith.sources.composer.weights import Weights, changed, renamed
from cogsmith.sources.write_safetensors import LazyTensor

if TYPE_CHECKING:
    import torch

_MOSAIC_GPT, _MPT = "mosaic_gpt", "mpt"

_FLAT_ATTENTION = {"attn_qk_ln": "qk_ln", "attn_clip_qkv": "clip_qkv"} | {
    name: name for name in ("softmax_scale", "prefix_lm", "alibi", "alibi_bias_max")
}
"""MosaicGPT's settings of attention, and what they are called in MPT's attn_config."""

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_NORMS = ("layernorm", "low_precision_layernorm")
_NORM_EPS = 1e-5
_MULTIHEAD = "multihead_attention"
_GELU = {"name": "gelu", "approximate": "none"}
_MPT_RATIO = 4
_MPT_BIAS_MAX = 8

_TO_MPT = {"ln_1": "norm_1", "ln_2": "norm_2", "mlp.mlp_up": "ffn.up_proj", "mlp.mlp_down": "ffn.down_proj"}
_TO_GPT2 = {
    "norm_1": "ln_1",
    "norm_2": "ln_2",
    "attn.Wqkv": "attn.c_attn",
    "attn.out_proj": "attn.c_proj",
    "ffn.up_proj": "mlp.c_fc",
    "ffn.down_proj": "mlp.c_proj",
}
_TURNED = ("attn.Wqkv", "attn.out_proj", "ffn.up_proj", "ffn.down_proj")
_WITHOUT_BIAS = ("transformer.wte", "transformer.wpe", "lm_head")
_BLOCK = re.compile(r"transformer\.blocks\.(?P<index>\d+)\.(?P<layer>.+)\.(?P<leaf>weight|bias)")


def is_mosaics(checkpoint: Checkpoint) -> bool:
    """Tell whether the model is of Mosaic's own code, not the MPT of transformers, whose settings mean less."""
    model_type = checkpoint.config.get("model_type")
    if model_type != _MPT:
        return bool(model_type == _MOSAIC_GPT)
    says_alibi = "alibi" in (checkpoint.config.get("attn_config") or {})
    return checkpoint.class_name.endswith(".MPTForCausalLM") or (is_wrapped(checkpoint) and says_alibi)


def as_known_model(config: Mapping[str, Any], weights: Weights) -> tuple[dict[str, Any], Weights]:
    """Return config.json and the tensors of the transformers model that computes the same.

    Raises ConversionError with everything that neither of the two can compute.
    """
    attention = _attention(config)
    weights = _with_names_of_mpt(weights)
    if attention.get("alibi"):
        _refuse(config, [*_faults(config, attention), *_faults_as_mpt(config, attention, weights)])
        return _mpt_config(config, attention), weights
    _refuse(config, [*_faults(config, attention), *_faults_as_gpt2(config, attention, weights)])
    return _gpt2_config(config), _with_biases(_as_gpt2(weights))


def _attention(config: Mapping[str, Any]) -> dict[str, Any]:
    if "attn_config" in config:
        return dict(config["attn_config"] or {})
    return {name: config[flat] for flat, name in _FLAT_ATTENTION.items() if flat in config}


def _ratio(config: Mapping[str, Any]) -> float:
    return float(config.get("mlp_ratio", config.get("expansion_ratio", 4)))


def _faults(config: Mapping[str, Any], attention: Mapping[str, Any]) -> Iterator[str]:
    """Yield what no model of transformers computes as these do."""
    for name in ("qk_ln", "qk_gn", "prefix_lm", "rope", "attn_logit_softcapping"):
        if attention.get(name):
            yield name
    for name in ("logit_scale", "final_logit_softcapping", "block_overrides", "multiquery_attention"):
        if config.get(name):
            yield name
    if attention.get("attn_type", _MULTIHEAD) != _MULTIHEAD and attention.get("kv_n_heads") != config["n_heads"]:
        yield f"attn_type {attention['attn_type']}"
    if attention.get("sliding_window_size", -1) != -1:
        yield "sliding_window_size"
    if not attention.get("fused_qkv", True):
        yield "fused_qkv = false"
    yield from _faults_beside_attention(config)


def _faults_beside_attention(config: Mapping[str, Any]) -> Iterator[str]:
    if str(config.get("norm_type", _NORMS[0])).lower() not in _NORMS:
        yield f"norm_type {config['norm_type']!r}"
    feed = config.get("ffn_config") or {}
    if feed.get("ffn_type", "mptmlp") != "mptmlp" or (feed.get("ffn_act_fn") or _GELU) != _GELU:
        yield "another MLP in ffn_config"


def _faults_as_mpt(config: Mapping[str, Any], attention: Mapping[str, Any], weights: Weights) -> Iterator[str]:
    if any(name.endswith(".bias") for name in weights):
        yield "ALiBi and biases together"
    if _ratio(config) != _MPT_RATIO:
        yield f"an MLP {_ratio(config):g} times as wide as the model (MptForCausalLM: {_MPT_RATIO})"
    if attention.get("alibi_bias_max", _MPT_BIAS_MAX) != _MPT_BIAS_MAX:
        yield f"alibi_bias_max {attention['alibi_bias_max']} (MptForCausalLM: {_MPT_BIAS_MAX})"
    heads = config["n_heads"]
    if config["model_type"] == _MOSAIC_GPT and heads & (heads - 1):
        # Its releases gave such heads other slopes, and a checkpoint does not say which.
        yield f"ALiBi for {heads} heads, which is no power of 2"


def _faults_as_gpt2(config: Mapping[str, Any], attention: Mapping[str, Any], weights: Weights) -> Iterator[str]:
    if attention.get("clip_qkv"):
        yield "clip_qkv without ALiBi"
    default = 1 / math.sqrt(config["d_model"] / config["n_heads"])
    if not math.isclose(attention.get("softmax_scale") or default, default, rel_tol=1e-6):
        yield f"softmax_scale {attention['softmax_scale']} without ALiBi"
    if "transformer.wpe.weight" not in weights:
        yield "no positions at all"


def _refuse(config: Mapping[str, Any], faults: list[str]) -> None:
    if faults:
        raise ConversionError(
            f"this {config['model_type']} model has {', '.join(faults)}, which no model of transformers computes",
            fix="give the model's own code: code.path, code.model_type, code.config, code.model",
        )


def _with_names_of_mpt(weights: Weights) -> Weights:
    """Return MosaicGPT's tensors by MPT's names, MPT's as they are."""
    named = {}
    for name, tensor in weights.items():
        own = name.replace("transformer.ln_f.", "transformer.norm_f.")
        if match := _BLOCK.fullmatch(name):
            layer = _TO_MPT.get(match["layer"], match["layer"])
            own = f"transformer.blocks.{match['index']}.{layer}.{match['leaf']}"
        named[own] = renamed(tensor, own)
    return named


def _mpt_config(config: Mapping[str, Any], attention: Mapping[str, Any]) -> dict[str, Any]:
    copied = ("d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size", *_IDS)
    return {
        "model_type": _MPT,
        "architectures": ["MptForCausalLM"],
        "dtype": config["dtype"],
        **{name: config[name] for name in copied if name in config},
        "expansion_ratio": _MPT_RATIO,
        "no_bias": True,
        "layer_norm_epsilon": config.get("norm_eps", _NORM_EPS),
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
        "use_cache": True,
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": _MPT_BIAS_MAX,
            "clip_qkv": attention.get("clip_qkv"),
            "softmax_scale": attention.get("softmax_scale"),
        },
    }


def _gpt2_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "dtype": config["dtype"],
        "n_embd": config["d_model"],
        "n_head": config["n_heads"],
        "n_layer": config["n_layers"],
        "n_positions": config["max_seq_len"],
        "n_inner": round(_ratio(config) * config["d_model"]),
        "vocab_size": config["vocab_size"],
        "activation_function": "gelu",
        "layer_norm_epsilon": config.get("norm_eps", _NORM_EPS),
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        **{name: config.get(name) for name in _IDS},
    }


def _as_gpt2(weights: Weights) -> Weights:
    """Return MPT's tensors as GPT-2's: other names, and linear layers' weights turned."""
    named = {}
    for name, tensor in weights.items():
        own = name.replace("transformer.norm_f.", "transformer.ln_f.")
        match = _BLOCK.fullmatch(name)
        if match:
            layer = _TO_GPT2.get(match["layer"], match["layer"])
            own = f"transformer.h.{match['index']}.{layer}.{match['leaf']}"
        if match and match["layer"] in _TURNED and match["leaf"] == "weight":
            named[own] = changed(tensor, own, tensor.shape[::-1], _turned)
        else:
            named[own] = renamed(tensor, own)
    return named


def _with_biases(weights: Weights) -> Weights:
    """Add the biases that GPT-2 has and a model with no_bias has not: zeros."""
    added = {}
    for name, tensor in weights.items():
        stem, _, leaf = name.rpartition(".")
        bias = f"{stem}.bias"
        if leaf == "weight" and stem not in _WITHOUT_BIAS and bias not in weights:
            added[bias] = _zeros(bias, tensor)
    return weights | added


def _zeros(name: str, weight: LazyTensor) -> LazyTensor:
    """Return a bias of nought for `weight`, a norm's [width] or a linear layer's [in, out]."""

    def make() -> torch.Tensor:
        import torch

        return torch.zeros(weight.shape[-1], dtype=weight.dtype)

    return LazyTensor(name, weight.dtype, weight.shape[-1:], make)


def _turned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.T.contiguous()
