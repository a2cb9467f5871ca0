"""Weights in 8 or 4 bits: what `quant.*` of a model says, and the same in the words of bitsandbytes.

The upstream keys (`config.load_in_4bit`, `config.bnb_4bit_*`, `config.llm_int8_*`) mean the same and are read into
the same type. This module travels into every work directory and needs neither torch nor transformers to be imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from cogsmith.errors import UserError

Bits = Literal[4, 8]
Dtype = Literal["float32", "float16", "bfloat16"]
Storage = Literal["uint8", "int8", "float16", "bfloat16", "float32", "float64"]
When = Literal["build", "load"]

SHORT_DTYPES: Mapping[str, Dtype] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What `output_precision` calls them; both spellings are understood."""

UPSTREAM: Mapping[str, str] = {
    "load_in_4bit": "bits",
    "load_in_8bit": "bits",
    "bnb_4bit_quant_type": "type",
    "bnb_4bit_use_double_quant": "double",
    "bnb_4bit_compute_dtype": "compute_dtype",
    "bnb_4bit_quant_storage": "storage",
    "llm_int8_threshold": "outlier_threshold",
    "llm_int8_has_fp16_weight": "finetunable",
    "llm_int8_skip_modules": "skip_modules",
    "llm_int8_enable_fp32_cpu_offload": "fp32_cpu_offload",
}
"""Keys of `config.*` that were once arguments of `from_pretrained`, which transformers 5 raises on."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "curated-4bit": {"bits": 4, "type": "fp4", "double": True, "compute_dtype": "bfloat16"},
    "curated-8bit": {"bits": 8, "outlier_threshold": 6.0, "finetunable": False},
    "lmql": {"bits": 4, "type": "nf4", "double": True},
    "accessory": {"bits": 4, "type": "nf4", "double": False, "compute_dtype": "bfloat16"},
}
"""Those of curated-transformers' `for_4bit()` and `for_8bit()`, LMQL's template and LLaMA2-Accessory's `--quant`."""

_ONLY: Mapping[str, Bits] = {
    **dict.fromkeys(("type", "double", "compute_dtype", "storage"), 4),
    **dict.fromkeys(("outlier_threshold", "finetunable"), 8),
}
_AT_LOAD = {
    "finetunable": "keeps the weights as they are and quantises them in every forward pass",
    "fp32_cpu_offload": "goes by the devices that the server has",
}
# Packed values with their scales: a float32 for 64 values of 4 bits, or 8 bits for 64 and a float32 for 256 of those;
# a float32 for a row of 8 bits, whose length hardly matters.
_BITS_PER_WEIGHT = {(4, False): 4.5, (4, True): 4.13, (8, False): 8.1, (8, True): 8.1}


class Quant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How bitsandbytes quantises a model's linear layers. Embeddings and the output head stay as they are."""

    bits: Bits
    type: Literal["nf4", "fp4"] = "nf4"
    """4 bits: the sixteen values that there are."""
    double: bool = True
    """4 bits: whether the scales are quantised too."""
    compute_dtype: Dtype | None = None
    """4 bits: what the layers compute in; None means the type that the model is loaded in."""
    storage: Storage = "uint8"
    """4 bits: the type that packed values are stored as."""
    outlier_threshold: float | None = None
    """8 bits: None leaves activations alone; else they become int8 too, but for values beyond this: LLM.int8()."""
    finetunable: bool = False
    """8 bits: whether the weights stay in their own type and are quantised in every forward pass."""
    skip_modules: tuple[str, ...] = ()
    """Modules that stay as they are, besides embeddings and head: names, their beginnings or ends, or patterns."""
    fp32_cpu_offload: bool = False
    """Whether modules that `config.device_map` puts on the CPU stay in float32 there."""
    at: When = "build"
    """Whether the work directory holds quantised weights, or the server quantises them each time it starts."""
    require_cuda: bool = False
    """Whether the server refuses to start without a GPU."""

    def to_bitsandbytes(self, dtype: str) -> dict[str, Any]:
        """Return the fields of transformers' `BitsAndBytesConfig`; `dtype` is the one that the model is loaded in."""
        fields = {
            "quant_method": "bitsandbytes",
            f"load_in_{self.bits}bit": True,
            "llm_int8_skip_modules": list(self.skip_modules) or None,
            "llm_int8_enable_fp32_cpu_offload": self.fp32_cpu_offload,
        }
        if self.bits == 8:
            threshold = {} if self.outlier_threshold is None else {"llm_int8_threshold": self.outlier_threshold}
            return {**fields, **threshold, "llm_int8_has_fp16_weight": self.finetunable}
        return {
            **fields,
            "bnb_4bit_quant_type": self.type,
            "bnb_4bit_use_double_quant": self.double,
            "bnb_4bit_compute_dtype": self.compute_dtype or dtype,
            "bnb_4bit_quant_storage": self.storage,
        }

    def weight_bytes(self, parameters: int, shape: Mapping[str, Any] | None, kept_bits: float) -> int:
        """Estimate the bytes of a model of so many `parameters`; `kept_bits` is what an unquantised one takes.

        `shape` is its config.json, which says how large embeddings and head are; without it all count as quantised.
        """
        kept = min(parameters, _embedding_parameters(shape or {}))
        bits = kept_bits if self.finetunable else _BITS_PER_WEIGHT[self.bits, self.double]
        return int((kept * kept_bits + (parameters - kept) * bits) / 8)

    def __str__(self) -> str:
        if self.bits == 8:
            return "8-bit" if self.outlier_threshold is None else f"8-bit, outliers from {self.outlier_threshold:g}"
        return f"4-bit {self.type}, {'double' if self.double else 'single'}"


_TYPES = {field.name: field.type for field in msgspec.structs.fields(Quant)}


class Fault(NamedTuple):
    """Something wrong with the settings: at which key, as it is spelled there."""

    key: str
    message: str
    fix: str


def complete(given: Mapping[str, Any]) -> Quant | None:
    """Return what `given` settings, without faults, come to: their preset's, over which they win. None where empty."""
    settings = {**PRESETS.get(given.get("preset", ""), {}), **given}
    settings.pop("preset", None)
    if not settings.get("bits"):
        return None
    if any(settings.get(key) for key in _AT_LOAD):
        settings.setdefault("at", "load")
    return msgspec.convert({key: _normal(key, value) for key, value in settings.items()}, Quant)


def contradictions(given: Mapping[str, Any], spelled: Mapping[str, str]) -> Iterator[Fault]:
    """Yield what settings must not say together. `spelled` is how the user wrote each key.

    Values of a wrong type are passed over: whoever read them has said so.
    """
    name = given.get("preset")
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    bits = given.get("bits", preset.get("bits"))
    if bits is None:
        yield from _no_bits(given, spelled)
    elif preset and bits != preset["bits"]:
        message = f"{spelled['preset']} = {_show(name)} is for {preset['bits']} bits, and {spelled['bits']} is {bits}"
        yield Fault(spelled["bits"], message, "remove one of the two")
    for key in given:
        if bits in (4, 8) and _ONLY.get(key, bits) != bits:
            message = f"{spelled[key]} = {_show(given[key])} is for {_ONLY[key]} bits, and this model gets {bits}"
            yield Fault(spelled[key], message, "remove it, or choose the other number of bits")
    for key, why in _AT_LOAD.items():
        if given.get("at") == "build" and given.get(key) is True:
            yield Fault(spelled["at"], f"{spelled[key]} {why}, so nothing can be quantised at build", 'write "load"')
    yield from _bad_patterns(given, spelled)


def upstream_keys(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `model_args` that say how to quantise."""
    return {key: value for key, value in model_args.items() if key in UPSTREAM}


def upstream_faults(model_args: Mapping[str, Any]) -> list[Fault]:
    """Return everything that is wrong with the upstream keys among `model_args`."""
    asked = upstream_keys(model_args)
    if asked.get("load_in_4bit") is True and asked.get("load_in_8bit") is True:
        message = "config.load_in_4bit and config.load_in_8bit are both true"
        return [Fault("config.load_in_8bit", message, "set one of them to false")]
    faults = [fault for key, value in asked.items() if (fault := _wrong_type(key, value))]
    spelled = {UPSTREAM[key]: f"config.{key}" for key in sorted(asked, key=lambda key: bool(asked[key]))}
    return [*faults, *contradictions(_from_upstream(asked), spelled)]


def from_upstream(model_args: Mapping[str, Any]) -> Quant | None:
    """Return what the upstream keys among `model_args` ask for, if anything. Raises UserError with all faults."""
    if faults := upstream_faults(model_args):
        raise UserError("; ".join(fault.message for fault in faults), fix="; ".join(fault.fix for fault in faults))
    return complete(_from_upstream(upstream_keys(model_args)))


def without_upstream(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return `model_args` as today's `from_pretrained` takes them."""
    return {key: value for key, value in model_args.items() if key not in UPSTREAM}


def kept_modules(config: Any) -> list[str]:
    """Return the names of the modules that are never quantised in a model of this transformers `config`.

    transformers keeps the output head and what is tied to it, but only where nothing else is named.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.quantizers.base import get_keys_to_not_convert

    of_texts = type(config) in AutoModelForCausalLM._model_mapping
    kind = AutoModelForCausalLM if of_texts else AutoModelForImageTextToText
    with torch.device("meta"):
        return list(get_keys_to_not_convert(kind.from_config(config)))


def _from_upstream(asked: Mapping[str, Any]) -> dict[str, Any]:
    given = {UPSTREAM[key]: value for key, value in asked.items() if UPSTREAM[key] != "bits"}
    bits = [int(key[8]) for key in ("load_in_4bit", "load_in_8bit") if asked.get(key)]
    return {**given, **({"bits": bits[0]} if bits else {})}


def _wrong_type(key: str, value: Any) -> Fault | None:
    field = UPSTREAM[key]
    try:
        msgspec.convert(_normal(field, value), bool if field == "bits" else _TYPES[field])
    except msgspec.ValidationError as error:
        return Fault(f"config.{key}", f"{_show(value)} is no {key}: {error}", "write another value, or remove the key")
    return None


def _normal(field: str, value: Any) -> Any:
    if field not in ("compute_dtype", "storage") or not isinstance(value, str):
        return value
    name = value.removeprefix("torch.")
    return SHORT_DTYPES.get(name, name)


def _no_bits(given: Mapping[str, Any], spelled: Mapping[str, str]) -> Iterator[Fault]:
    knobs = [key for key in given if key != "preset"]
    if knobs and "preset" not in given:
        key = knobs[0]
        message = f"{spelled[key]} = {_show(given[key])} says how to quantise, and nothing says to how many bits"
        upstream = spelled[key].startswith("config.")
        yield Fault(
            spelled[key], message, f"add {'config.load_in_4bit = true' if upstream else 'quant.bits = 4'}, or remove it"
        )


def _bad_patterns(given: Mapping[str, Any], spelled: Mapping[str, str]) -> Iterator[Fault]:
    names = given.get("skip_modules")
    for name in names if isinstance(names, list | tuple) else ():
        try:
            re.compile(name if isinstance(name, str) else "")
        except re.error as error:
            message = f"{_show(name)} is neither a module's name nor a pattern: {error}"
            yield Fault(spelled["skip_modules"], message, r'write the name, such as "model.layers.0"')


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _embedding_parameters(shape: Mapping[str, Any]) -> int:
    text = shape.get("text_config") or shape
    vocab, hidden = text.get("vocab_size"), text.get("hidden_size") or text.get("n_embd")
    if not (isinstance(vocab, int) and isinstance(hidden, int)):
        return 0
    tied = shape.get("tie_word_embeddings", text.get("tie_word_embeddings", True))
    return vocab * hidden * (1 if tied else 2)
