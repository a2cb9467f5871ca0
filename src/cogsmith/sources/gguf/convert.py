"""One GGUF file into one Hugging Face checkpoint folder, verified."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

from cogsmith.config.model import Precision
from cogsmith.errors import ConversionError, MissingExtra, SourceError
from cogsmith.sources.base import Reporter
from cogsmith.sources.gguf import USE_ORIGINAL
from cogsmith.sources.gguf.header import Header
from cogsmith.sources.gguf.rope import ROPE_FACTORS, rope_scaling
from cogsmith.sources.gguf.tokenizer import SpecialIds, build_tokenizer
from cogsmith.sources.gguf.verify import probe_logits, verify_model, verify_tokenizer
from cogsmith.sources.silent import quiet_libraries

VERSION = 2
"""Counts up with every change that makes the conversion write other bytes; part of the cache's key."""

_PACKAGES = ("accelerate", "gguf", "numpy", "safetensors", "tokenizers", "torch", "transformers")


def require_converter() -> None:
    """Check that the packages of the conversion are there, without importing them. Raises MissingExtra."""
    if not all(importlib.util.find_spec(package) for package in _PACKAGES):
        raise MissingExtra("engine,gguf", "Converting a GGUF file")


def convert(header: Header, folder: Path, precision: Precision, reporter: Reporter) -> None:
    """Write the checkpoint of the GGUF behind `header` into the empty `folder`, and verify it.

    Holds the weights in fp32 twice at most. Raises SourceError for a file cut off, ConversionError for one that
    cannot be converted exactly.
    """
    check_complete(header)
    with quiet_libraries(), reporter.task(f"Converting {header.path.name}", 4, unit="steps") as task:
        built = build_tokenizer(header.metadata)
        built.save(folder)
        task.advance(1)
        model = load_model(header)
        expected = probe_logits(model)
        task.advance(1)
        save_model(model, folder, precision, built.special)
        del model
        task.advance(1)
        verify_tokenizer(folder, built)
        verify_model(folder, expected, precision, built.special)
        task.advance(1)


def check_complete(header: Header) -> None:
    """Check that the file is whole and on its own. Raises SourceError for one cut off, ConversionError for a part."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    parts = header.metadata.get("split.count", 0)
    if parts > 1:
        raise ConversionError(
            f"{header.path.name} is one of {parts} parts of a GGUF", fix="join them with llama-gguf-split --merge"
        )
    for tensor in header.tensors:
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.ggml_type)]
        except (ValueError, KeyError) as error:
            raise ConversionError(
                f"tensor {tensor.name} has unknown type {tensor.ggml_type}", fix=USE_ORIGINAL
            ) from error
        end = header.data_start + tensor.offset + tensor.elements // block * block_bytes
        if end > header.size:
            raise SourceError(
                f"{header.path} is cut off: it has {header.size} bytes and tensor {tensor.name} ends at {end}",
                fix="fetch the file again",
            )


def load_model(header: Header) -> Any:
    """Return the GGUF's model with its weights in fp32. Raises ConversionError if any weight would be left out."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    with tempfile.TemporaryDirectory() as directory:
        # The loader goes by the file's name, and a cache may keep the bytes under another.
        name = "model.gguf"
        os.symlink(header.path.resolve(), Path(directory, name))
        try:
            config = AutoConfig.from_pretrained(directory, gguf_file=name)
            if scaling := rope_scaling(header):
                config.rope_parameters = {**config.rope_parameters, **scaling}
            model, report = AutoModelForCausalLM.from_pretrained(
                directory,
                gguf_file=name,
                config=config,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
        except (ValueError, KeyError, NotImplementedError, AttributeError, RuntimeError) as error:
            raise ConversionError(
                f"{header.path.name} (architecture {header.architecture!r}) cannot be loaded: {error}", fix=USE_ORIGINAL
            ) from error
    _check_all_weights_used(header, model, report)
    return model


def _check_all_weights_used(header: Header, model: Any, report: dict[str, Any]) -> None:
    missing = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if missing:
        raise ConversionError(
            f"{header.path.name} lacks weights of its architecture {header.architecture!r}: {', '.join(missing[:5])}",
            fix=USE_ORIGINAL,
        )
    stored = sum(tensor.elements for tensor in header.tensors if not _outside_model(tensor.name, model.config))
    loaded = sum(parameter.numel() for parameter in model.parameters())
    if stored != loaded:
        raise ConversionError(
            f"{header.path.name} holds {stored} weights, but its architecture {header.architecture!r} "
            f"takes {loaded} of them",
            fix=USE_ORIGINAL,
        )


def _outside_model(name: str, config: Any) -> bool:
    """Say whether a tensor is no weight of the model: position factors, the copy of a tied head, or a block
    past the last layer, which predicts several tokens at once and has no place in transformers' models."""
    text = config.get_text_config()
    kind, _, rest = name.partition(".")
    if kind == "blk":
        return int(rest.partition(".")[0]) >= int(text.num_hidden_layers)
    tied = bool(text.tie_word_embeddings)
    return name == ROPE_FACTORS or (tied and name == "output.weight")


def save_model(model: Any, folder: Path, precision: Precision, special: SpecialIds) -> None:
    """Write safetensors, config.json and generation_config.json. Changes `model`'s precision in place."""
    import torch
    from transformers import GenerationConfig

    model.to({"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision])
    eos = list(special.eos) if len(special.eos) > 1 else special.eos[0]
    ids = {"bos_token_id": special.bos, "eos_token_id": eos, "pad_token_id": special.pad}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder, max_shard_size="5GB")
    for file in folder.glob("*.safetensors"):
        # safetensors writes them readable by their owner only, and a container may run as somebody else.
        file.chmod(0o644)
