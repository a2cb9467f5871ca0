"""Position scaling that a GGUF states comes out in the converted model, or the file is refused."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from cogsmith.sources.gguf.rope import llama3_factors

from .files import F32, TinyGguf
from .models import built_by_hand, convert, logits, logits_by_hand


def test_linear_position_scaling(tmp_path: Path):
    tiny = TinyGguf(metadata={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0})
    folder = convert(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    want = logits_by_hand(tiny, rope_type="linear", factor=4.0)
    torch.testing.assert_close(logits(folder), want, rtol=0, atol=1e-5)
    assert not torch.allclose(want, logits_by_hand(tiny), atol=1e-2)


def test_llama3_position_scaling(tmp_path: Path):
    tiny = TinyGguf()
    tiny.metadata["llama.rope.freq_base"] = 500000.0
    rope = {
        "rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    plain = built_by_hand(tiny, rope_theta=500000.0).model.rotary_emb.inv_freq
    scaled = built_by_hand(tiny, **rope).model.rotary_emb.inv_freq
    tiny.add("rope_freqs.weight", (plain / scaled).numpy(), F32)
    folder = convert(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(loaded.model.rotary_emb.inv_freq, scaled)
    torch.testing.assert_close(logits(folder), logits_by_hand(tiny, **rope), rtol=0, atol=1e-5)


def test_llama3_factors_leave_short_waves_and_divide_long_ones():
    factors = llama3_factors(500000.0, 64, 8.0)
    assert factors[0] == 1
    assert factors[-1] == 8
    assert factors == sorted(factors)
    middle = [index for index, factor in enumerate(factors) if 1 < factor < 8]
    turns = [8192 / (2 * math.pi * 500000.0 ** (index / 64)) for index in middle]
    assert all(1 < turn < 4 for turn in turns)
