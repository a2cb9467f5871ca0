"""Proof that a converted checkpoint folder is the GGUF it came from: same token ids, same logits, right EOS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError
from cogsmith.sources.gguf import USE_ORIGINAL
from cogsmith.sources.gguf.tokenizer import GgufTokenizer, SpecialIds
from cogsmith.sources.probe import load_tokenizer, probe_texts

if TYPE_CHECKING:
    import torch

TOLERANCE = {"fp32": 0.0, "fp16": 0.01, "bf16": 0.05}
"""Largest relative error of the logits (Euclidean norm) by output precision. Half precision rounds each weight once:
a relative 2**-11 (fp16) or 2**-8 (bf16), which comes to about ten times less than these bounds in the logits."""

_PROBE_LENGTH = 64


def verify_tokenizer(folder: Path, built: GgufTokenizer) -> None:
    """Check that AutoTokenizer reads `folder` as what was `built`. Raises ConversionError at the first difference.

    Transformers rebuilds some tokenizers from their parts when it loads them, so only a comparison tells.
    """
    loaded = load_tokenizer(folder)
    for text in probe_texts(_special_tokens(built)):
        for special in (True, False):
            want = built.tokenizer.encode(text, add_special_tokens=special).ids
            have = loaded(text, add_special_tokens=special)["input_ids"]
            _expect(have == want, f"the saved tokenizer reads {text!r} as {have}, the GGUF's as {want}")
        _expect(
            loaded.decode(want, clean_up_tokenization_spaces=False)
            == built.tokenizer.decode(want, skip_special_tokens=False),
            f"the saved tokenizer spells {want} differently from the GGUF's",
        )
    _expect(
        loaded.eos_token_id == built.special.eos[0],
        f"the saved tokenizer ends with id {loaded.eos_token_id}, the GGUF's with {built.special.eos[0]}",
    )


def _special_tokens(built: GgufTokenizer) -> list[str]:
    return [token.content for token in built.tokenizer.get_added_tokens_decoder().values()]


def probe_logits(model: Any) -> torch.Tensor:
    """Return `model`'s logits for a fixed sequence that walks through its whole vocabulary."""
    import torch

    size = model.config.get_text_config().vocab_size
    ids = torch.arange(_PROBE_LENGTH).mul(size).div(_PROBE_LENGTH, rounding_mode="floor").unsqueeze(0)
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(input_ids=ids, use_cache=False).logits
    return logits


def verify_model(folder: Path, expected: torch.Tensor, precision: str, special: SpecialIds) -> None:
    """Check that the model in `folder` gives the `expected` logits and stops where the GGUF says.

    Logits are computed in fp32 whatever the file's `precision`; see TOLERANCE. Raises ConversionError.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    logits = probe_logits(model)
    if precision == "fp32":
        _expect(torch.equal(logits, expected), "the saved model's logits differ from the GGUF's")
    else:
        error = ((logits - expected).norm() / expected.norm()).item()
        # Written so that NaN, which compares false, is refused too.
        _expect(
            error <= TOLERANCE[precision],
            f"in {precision} the model's logits differ from the GGUF's by {error:.2%}",
            fix='choose another output_precision; "fp32" is exact',
        )
    ends = model.generation_config.eos_token_id
    _expect(
        (ends if isinstance(ends, list) else [ends]) == list(special.eos),
        f"the saved model stops at {ends}, the GGUF at {list(special.eos)}",
    )


def _expect(condition: bool, message: str, fix: str | None = None) -> None:
    if not condition:
        raise ConversionError(message, fix=fix or USE_ORIGINAL)
