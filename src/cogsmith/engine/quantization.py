"""The upstream config keys for bitsandbytes, in today's words.

`config.load_in_4bit = true` was once an argument of `from_pretrained`; transformers 5 raises on it and wants a
`BitsAndBytesConfig`. The 4-bit values are those of LMQL's own Replicate template: nf4, double quantisation, computing
in the checkpoint's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cogsmith.errors import UserError

_SHORTHANDS = ("load_in_4bit", "load_in_8bit")


def translate(model_args: Mapping[str, Any], compute_dtype: str) -> dict[str, Any]:
    """Return `model_args` with the shorthands replaced by a `quantization_config` dictionary.

    `compute_dtype` is torch's name of the dtype that 4-bit layers compute in, such as "bfloat16". Other
    `bnb_4bit_*` and `llm_int8_*` keys move into the dictionary too and win over the template's values.
    """
    asked = [name for name in _SHORTHANDS if model_args.get(name)]
    rest = {key: value for key, value in model_args.items() if key not in _SHORTHANDS}
    if not asked:
        return rest
    if len(asked) == 2:
        raise UserError("config.load_in_4bit and config.load_in_8bit are both true", fix="choose one")
    knobs = {key: rest.pop(key) for key in list(rest) if key.startswith(("bnb_4bit_", "llm_int8_"))}
    defaults = _four_bit_defaults(compute_dtype) if asked == ["load_in_4bit"] else {}
    quantization = {"quant_method": "bitsandbytes", asked[0]: True, **defaults, **knobs}
    return {**rest, "quantization_config": quantization}


def _four_bit_defaults(compute_dtype: str) -> dict[str, Any]:
    return {
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": compute_dtype,
    }
