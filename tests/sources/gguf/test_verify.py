"""The check after a conversion notices a folder that is not the GGUF any more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cogsmith.errors import ConversionError
from cogsmith.sources.gguf.tokenizer import build_tokenizer
from cogsmith.sources.gguf.verify import verify_model, verify_tokenizer

from .files import TinyGguf
from .models import built_by_hand, convert


@pytest.fixture
def tiny() -> TinyGguf:
    return TinyGguf(metadata={"tokenizer.ggml.add_bos_token": True})


@pytest.fixture
def folder(tiny: TinyGguf, tmp_path: Path) -> Path:
    return convert(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "cache")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def expected_logits(tiny: TinyGguf) -> torch.Tensor:
    """Return the logits of the probe, computed by a model put together by hand."""
    model = built_by_hand(tiny)
    probe = torch.tensor([[index * model.config.vocab_size // 64 for index in range(64)]])
    with torch.inference_mode():
        return model(probe).logits


def test_sound_folder_passes(tiny: TinyGguf, folder: Path):
    built = build_tokenizer(tiny.metadata)
    verify_tokenizer(folder, built)
    verify_model(folder, expected_logits(tiny), "fp32", built.special)


def test_one_changed_weight_is_noticed(tiny: TinyGguf, folder: Path):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] += 0.01
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConversionError, match="logits differ"):
        verify_model(folder, expected_logits(tiny), "fp32", build_tokenizer(tiny.metadata).special)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", 1e-3), ("rope_parameters", {"rope_type": "default", "rope_theta": 5000.0})],
)
def test_changed_config_is_noticed(tiny: TinyGguf, folder: Path, key: str, value: Any):
    edit(folder / "config.json", lambda config: config.update({key: value}))
    with pytest.raises(ConversionError, match="logits differ"):
        verify_model(folder, expected_logits(tiny), "fp32", build_tokenizer(tiny.metadata).special)


@pytest.mark.parametrize("eos", [1, [2, 1], None])
def test_wrong_end_is_noticed(tiny: TinyGguf, folder: Path, eos: Any):
    edit(folder / "generation_config.json", lambda config: config.update(eos_token_id=eos))
    with pytest.raises(ConversionError, match=r"stops at .*, the GGUF at \[2\]"):
        verify_model(folder, expected_logits(tiny), "fp32", build_tokenizer(tiny.metadata).special)


def no_digit_rule(tokenizer: Any) -> None:
    del tokenizer["pre_tokenizer"]["pretokenizers"][0]


def no_special_tokens(tokenizer: Any) -> None:
    tokenizer["added_tokens"].clear()


@pytest.mark.parametrize("change", [no_digit_rule, no_special_tokens])
def test_changed_tokenizer_is_noticed(tiny: TinyGguf, folder: Path, change: Callable[[Any], None]):
    edit(folder / "tokenizer.json", change)
    with pytest.raises(ConversionError, match="the saved tokenizer reads"):
        verify_tokenizer(folder, build_tokenizer(tiny.metadata))


def test_changed_eos_token_is_noticed(tiny: TinyGguf, folder: Path):
    edit(folder / "tokenizer_config.json", lambda config: config.update(eos_token="<|im_start|>"))
    with pytest.raises(ConversionError, match="ends with id 1, the GGUF's with 2"):
        verify_tokenizer(folder, build_tokenizer(tiny.metadata))
