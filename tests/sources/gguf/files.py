"""Tiny GGUF files with random weights, and what is in them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

DATA = Path(__file__).parent / "data"
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD, LAYERS, CONTEXT, THETA = 64, 4, 2, 16, 96, 2, 128, 10000.0
Q8, Q4, F16, F32 = (gguf.GGMLQuantizationType[name] for name in ("Q8_0", "Q4_1", "F16", "F32"))


def golden(name: str) -> dict[str, Any]:
    """Return a golden file that data/make_goldens.py wrote."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def tokenizer_metadata(kind: str, pre: str = "smollm") -> dict[str, Any]:
    """Return the tokenizer's part of the metadata, as a reader gives it, for a tiny vocabulary of that kind."""
    vocabulary = golden("tiny.json")[kind]
    metadata = {
        "model": kind,
        "tokens": vocabulary["tokens"],
        "token_type": vocabulary["types"],
        "bos_token_id": vocabulary["bos"],
        "eos_token_id": vocabulary["eos"],
        "unknown_token_id": 0,
        "add_bos_token": False,
    }
    if kind == "gpt2":
        metadata |= {"pre": pre, "merges": vocabulary["merges"]}
    else:
        metadata |= {"scores": vocabulary["scores"]}
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}


@dataclass
class TinyGguf:
    """What goes into a file; change it, then `write` it. Tensors are quantised already."""

    kind: str = "gpt2"
    architecture: str = "llama"
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in a two-layer model with tied embeddings."""
        self.metadata = {**tokenizer_metadata(self.kind), **self._shape(), **self.metadata}
        self._add_weights(np.random.default_rng(7))

    def _shape(self) -> dict[str, Any]:
        keys = {
            "context_length": CONTEXT,
            "embedding_length": HIDDEN,
            "block_count": LAYERS,
            "feed_forward_length": FEED_FORWARD,
            "attention.head_count": HEADS,
            "attention.head_count_kv": KV_HEADS,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": HEAD_DIM,
            "rope.freq_base": THETA,
        }
        return {f"{self.architecture}.{key}": value for key, value in keys.items()}

    def _add_weights(self, random: np.random.Generator) -> None:
        vocabulary = len(self.metadata["tokenizer.ggml.tokens"])
        kv = KV_HEADS * HEAD_DIM
        self.add("token_embd.weight", random.normal(size=(vocabulary, HIDDEN)), Q8)
        self.add("output_norm.weight", 1 + random.normal(size=HIDDEN) / 10, F32)
        matrices = {
            "attn_q": (HIDDEN, HIDDEN, Q4),
            "attn_k": (kv, HIDDEN, Q8),
            "attn_v": (kv, HIDDEN, F16),
            "attn_output": (HIDDEN, HIDDEN, Q4),
            "ffn_gate": (FEED_FORWARD, HIDDEN, Q4),
            "ffn_up": (FEED_FORWARD, HIDDEN, Q8),
            "ffn_down": (HIDDEN, FEED_FORWARD, Q8),
        }
        for layer in range(LAYERS):
            for name, (rows, columns, kind) in matrices.items():
                self.add(f"blk.{layer}.{name}.weight", random.normal(size=(rows, columns)) / 6, kind)
            for name in ("attn_norm", "ffn_norm"):
                self.add(f"blk.{layer}.{name}.weight", 1 + random.normal(size=HIDDEN) / 10, F32)
            if self.architecture == "qwen2":
                for name, size in (("attn_q", HIDDEN), ("attn_k", kv), ("attn_v", kv)):
                    self.add(f"blk.{layer}.{name}.bias", random.normal(size=size) / 6, F32)

    def add(self, name: str, values: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
        """Put a tensor in, quantised to `kind`."""
        self.tensors[name] = (gguf.quants.quantize(values.astype(np.float32), kind), kind)

    def values(self, name: str) -> np.ndarray:
        """Return a tensor as anybody would read it back, in fp32."""
        return gguf.quants.dequantize(*self.tensors[name]).astype(np.float32)

    def write(self, path: Path) -> Path:
        """Write the file."""
        writer = gguf.GGUFWriter(path, self.architecture)
        for key, value in self.metadata.items():
            _put(writer, key, value)
        for name, (data, kind) in self.tensors.items():
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def _put(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        put = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        put[type(value)](key, value)
