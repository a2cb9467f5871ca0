"""What inspect says of a checkpoint, against the same model loaded by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, LlamaForCausalLM, MptConfig

from cogsmith.engine.description import describe
from cogsmith.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).to(torch.float16).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("asked", [{}, {"dtype": "auto"}, {"dtype": "bfloat16"}, {"torch_dtype": "torch.float32"}])
def test_numbers_are_those_of_the_loaded_model(folder: Path, asked: dict[str, str]):
    dtype = asked.get("dtype") or asked.get("torch_dtype", "auto")
    loaded = LlamaForCausalLM.from_pretrained(folder, dtype=dtype.removeprefix("torch."))
    found = describe(folder, asked)
    assert (found.n_params, found.footprint_bytes) == (loaded.num_parameters(), loaded.get_memory_footprint())
    assert (found.dtype, found.layers) == (str(loaded.dtype).removeprefix("torch."), 2)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (
            GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2),
            ("GPT2Block", "GPT2Attention", "GPT2MLP", "LayerNorm"),
        ),
        (
            MptConfig(vocab_size=64, d_model=16, n_heads=2, n_layers=2),
            ("MptBlock", "MptAttention", "MptMLP", "LayerNorm"),
        ),
    ],
)
def test_the_parts_of_a_layer_are_those_of_the_model(tmp_path: Path, config: Any, parts: tuple[str, ...]):
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    found = describe(tmp_path, {})
    assert (found.layer, found.attention, found.mlp, found.norms) == parts
    assert (found.layers, found.heads, found.hidden_size) == (2, 2, 16)
    assert found.head == f"{model.get_output_embeddings()}, the embedding's weights"
    assert found.tree == str(model)


@pytest.mark.parametrize("name", ["int3", "nn", "float16 "])
def test_a_dtype_that_is_none(folder: Path, name: str):
    with pytest.raises(UserError, match="is no floating-point type"):
        describe(folder, {"dtype": name})
