"""A foreign format for tests: one file, weights.toy, which is a safetensors file under another name, and its shape."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file

from cogsmith.errors import SourceError
from cogsmith.sources.base import Reporter, SourceFile
from cogsmith.sources.importer import Listing, Options, Part

SHAPE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, None: torch.float32}


def toy_files(fill: float = 1.0, drop: str = "", **extra: torch.Tensor) -> dict[str, bytes]:
    """Return a checkpoint in the toy's format, next to something that is not needed."""
    square, wide = torch.full((8, 8), fill), torch.full((16, 8), fill)
    layer = "model.layers.0."
    tensors = {
        "model.embed_tokens.weight": wide,
        **{f"{layer}self_attn.{name}_proj.weight": square.clone() for name in "qkvo"},
        **{f"{layer}mlp.{name}_proj.weight": square.clone() for name in ("gate", "up", "down")},
        **{f"{layer}{name}_layernorm.weight": torch.ones(8) for name in ("input", "post_attention")},
        "model.norm.weight": torch.ones(8),
        **extra,
    }
    tensors.pop(drop, None)
    return {"weights.toy": save(tensors), "shape.json": json.dumps(SHAPE).encode(), "optimizer.toy": bytes(1000)}


class ToyImporter:
    """Reads it. Several sources are added up, in order; it counts how often it converts."""

    name = "toy"
    version = 1
    packages = ("torch", "safetensors")
    extra = "engine"

    def __init__(self) -> None:
        self.conversions = 0
        self.seen: Options | None = None
        self.fault: Exception | None = None

    def recognises(self, files: Sequence[SourceFile]) -> bool:
        return any(file.path == "weights.toy" for file in files)

    def select(self, listings: Sequence[Listing], options: Options) -> Sequence[tuple[SourceFile, ...]]:
        chosen = [tuple(f for f in it.files if f.path in ("weights.toy", "shape.json")) for it in listings]
        if bad := [it.uri for it, files in zip(listings, chosen, strict=True) if len(files) < 2]:
            raise SourceError(f"no toy: {', '.join(bad)}")
        return chosen

    def convert(self, parts: Sequence[Part], options: Options, folder: Path, reporter: Reporter) -> None:
        self.conversions += 1
        self.seen = options
        dtype = DTYPES[options.output_precision]
        total: dict[str, torch.Tensor] = {}
        for part in parts:
            for name, tensor in load_file(part.places["weights.toy"]).items():
                total[name] = (total[name] * 2 + tensor if name in total else tensor).to(dtype)
        save_file(total, folder / "model.safetensors", {"format": "pt"})
        if self.fault:
            raise self.fault
        shape = json.loads(parts[0].places["shape.json"].read_bytes())
        for file in options.llama_config:
            shape |= json.loads(file.read_bytes())
        shape["max_position_embeddings"] = options.max_seq_len or shape["max_position_embeddings"]
        (folder / "config.json").write_text(json.dumps(shape))
        for path, place in (options.tokenizer.places if options.tokenizer else {}).items():
            (folder / path).write_bytes(place.read_bytes())
