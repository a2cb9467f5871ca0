"""A tiny GGUF converted, and the same model put together by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from cogsmith.config.model import Model
from cogsmith.sources.base import Checkpoint
from cogsmith.sources.gguf.source import GgufSource
from cogsmith.sources.local import FileLocation

from ..checkpoints import Watcher
from .files import FEED_FORWARD, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, THETA, TinyGguf

IDS = torch.tensor([[1, 5, 99, 300, 42, 7, 250, 600, 3, 2]])


def convert(path: Path, cache: Path, **options: Any) -> Path:
    """Convert through the public interface; return the folder in the cache."""
    return materialise(path, cache, **options).files[0].origin.parent


def materialise(path: Path, cache: Path, **options: Any) -> Checkpoint:
    """Resolve and materialise one GGUF file."""
    source = GgufSource(FileLocation(path, cache), path.name, Model("tiny", "", **options), cache)
    return source.materialise(source.resolve(), Watcher())


def logits(folder: Path) -> torch.Tensor:
    """Return the logits that a user of the folder gets."""
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits


def built_by_hand(tiny: TinyGguf, **rope: Any) -> LlamaForCausalLM:
    """Put the dequantised tensors into a LlamaForCausalLM, with GGUF's interleaved rotary rows sorted back."""
    config = LlamaConfig(
        vocab_size=len(tiny.values("token_embd.weight")),
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        # The file holds it in single precision.
        rms_norm_eps=float(np.float32(1e-5)),
        rope_parameters={"rope_type": "default", "rope_theta": THETA, **rope},
        tie_word_embeddings="output.weight" not in tiny.tensors,
    )
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    parts = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    }  # fmt: skip
    for layer in range(LAYERS):
        names |= {f"blk.{layer}.{part}": f"model.layers.{layer}.{name}" for part, name in parts.items()}
    model = LlamaForCausalLM(config)
    state = {}
    for name in tiny.tensors:
        stem = name.removesuffix(".weight")
        if stem in names:
            values = tiny.values(name)
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(stem.rpartition(".")[2])
            state[names[stem] + ".weight"] = torch.from_numpy(deinterleave(values, heads) if heads else values)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    return model.eval()


def deinterleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Within each head, GGUF keeps the pair that a frequency turns side by side; Hugging Face half a head apart."""
    dim = len(rows) // heads
    order = [head * dim + 2 * turn + half for head in range(heads) for half in (0, 1) for turn in range(dim // 2)]
    return np.ascontiguousarray(rows[order])


def logits_by_hand(tiny: TinyGguf, **rope: Any) -> torch.Tensor:
    with torch.inference_mode():
        return built_by_hand(tiny, **rope)(IDS).logits
