"""Weights quantised while building: any source's checkpoint, its layers packed by bitsandbytes, kept in the cache.

The image is smaller by that, and the server starts without quantising anything. The model is saved before any forward
pass, which would repack 4-bit weights in place for this processor. What was saved is loaded again, and must be the same
to the bit.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from cogsmith.cache import atomic_folder
from cogsmith.config.model import Model
from cogsmith.errors import ConversionError, MissingExtra, SourceError
from cogsmith.quant import Quant, kept_modules
from cogsmith.sources import made
from cogsmith.sources.base import Checkpoint, CheckpointFile, Reporter, Resolved, Source
from cogsmith.sources.selection import CONFIG
from cogsmith.sources.silent import quiet_libraries

VERSION = 1
"""Counts up with every change that makes the quantisation write other bytes; part of the cache's key."""

_PACKAGES = ("accelerate", "bitsandbytes", "safetensors", "torch", "transformers")
_WEIGHTS = (".safetensors", ".index.json", ".bin", ".pt", ".pth")
# What the server does with the weights, and no part of them.
_NOT_IN_THE_BYTES = ("at", "require_cuda")


class QuantisedSource:
    """The checkpoint of `original`, quantised as `model` says. `cache` is the cache's root."""

    def __init__(self, original: Source, model: Model, quant: Quant, cache: Path) -> None:
        self._original = original
        self._quant = quant
        self._dtype = str(model.model_args.get("dtype") or model.model_args.get("torch_dtype") or "auto")
        self._cache = cache

    def resolve(self) -> Resolved:
        """Name the original's revision and files; estimate what comes out. Raises SourceError as the original does."""
        resolved = self._original.resolve()
        _refuse_quantised(resolved)
        size = resolved.checkpoint_bytes
        if resolved.parameters:
            kept_bits = 8 * size / resolved.parameters
            size = self._quant.weight_bytes(resolved.parameters, resolved.shape, kept_bits)
        return replace(resolved, checkpoint_bytes=size, unquantised_bytes=resolved.checkpoint_bytes, exact=False)

    def materialise(self, resolved: Resolved, reporter: Reporter) -> Checkpoint:
        """Bring the original here and quantise it, unless that was done before.

        Raises MissingExtra before anything is fetched, then what the original raises, or ConversionError; the cache
        only ever holds whole, verified folders.
        """
        require_quantiser()
        original = self._original.materialise(resolved, reporter)
        folder = self._cache / "quantised" / self._cache_key(original)
        if not folder.is_dir():
            with atomic_folder(folder) as unfinished:
                quantise(original, unfinished, self._quant, self._dtype, reporter)
        return made.checkpoint(folder, reporter, self._cache)

    def _cache_key(self, original: Checkpoint) -> str:
        """Return the name of the folder: a hash of all that decides its bytes."""
        settings = msgspec.to_builtins(self._quant)
        return made.hash_of(
            {
                "files": sorted((file.path, file.sha256) for file in original.files),
                "quant": {key: value for key, value in settings.items() if key not in _NOT_IN_THE_BYTES},
                "dtype": self._dtype,
                "quantiser": VERSION,
                "packages": [version(package) for package in _PACKAGES],
            }
        )


def require_quantiser() -> None:
    """Check that the packages of the quantisation are there, without importing them. Raises MissingExtra."""
    if not all(importlib.util.find_spec(package) for package in _PACKAGES):
        raise MissingExtra("engine,quant", "Quantising a model")


def quantise(original: Checkpoint, folder: Path, quant: Quant, dtype: str, reporter: Reporter) -> None:
    """Write `original`, quantised, into the empty `folder`, and verify it.

    What is not quantised is stored as `dtype`, or as it is where that is "auto". Raises ConversionError where nothing
    can be quantised, or where the saved model is another than the one in memory.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with quiet_libraries(), reporter.task("Quantising", 3, unit="steps") as task:
        with tempfile.TemporaryDirectory() as directory:
            _lay_out(original.files, Path(directory))
            model = _load(Path(directory), quant, dtype)
        task.advance(1)
        expected = _digests(model)
        _save(model, original.files, folder)
        del model
        task.advance(1)
        _verify(folder, expected)
        task.advance(1)


def _refuse_quantised(resolved: Resolved) -> None:
    stated = (resolved.shape or {}).get("quantization_config")
    if isinstance(stated, dict):
        raise SourceError(
            f"{resolved.uri} is quantised already ({stated.get('quant_method')}), and cannot be quantised again",
            fix="leave out quant and config.load_in_*, or name the original weights",
        )


def _lay_out(files: Iterable[CheckpointFile], folder: Path) -> None:
    for file in files:
        place = folder / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file.origin.resolve())


def _load(folder: Path, quant: Quant, dtype: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    stated = str(getattr(config.get_text_config(), "dtype", None) or "float32") if dtype == "auto" else dtype
    fields = quant.to_bitsandbytes(stated.removeprefix("torch."))
    if quant.skip_modules:
        fields["llm_int8_skip_modules"] += kept_modules(config)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            quantization_config=BitsAndBytesConfig.from_dict(fields),
            dtype=dtype,
            device_map={"": "cpu"},
            local_files_only=True,
        ).eval()
    except (ValueError, KeyError, NotImplementedError, AttributeError, RuntimeError) as error:
        raise ConversionError(f"the model cannot be quantised: {error}", fix='try quant.at = "load"') from error
    if not any(type(module).__module__.startswith("bitsandbytes.") for module in model.modules()):
        raise ConversionError("the model has no layer that bitsandbytes can quantise", fix="leave out quant")
    return model


def _save(model: Any, files: Iterable[CheckpointFile], folder: Path) -> None:
    """Write weights and config.json; the other files, the tokenizer's among them, are the original's."""
    from transformers import GenerationConfig

    # What a checkpoint's own generation_config.json says may be such that transformers refuses to write it.
    model.generation_config = GenerationConfig()
    model.save_pretrained(folder, max_shard_size="5GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file in files:
        if file.path != CONFIG and not file.path.endswith(_WEIGHTS):
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.origin, folder / file.path)
    for path in folder.rglob("*.safetensors"):
        # safetensors writes them readable by their owner only, and a container may run as somebody else.
        path.chmod(0o644)


def _verify(folder: Path, expected: dict[str, str]) -> None:
    from transformers import AutoModelForCausalLM

    loaded = _digests(AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}, local_files_only=True))
    different = sorted(name for name in expected.keys() | loaded.keys() if expected.get(name) != loaded.get(name))
    if different:
        raise ConversionError(
            f"the saved model is not the quantised one: {', '.join(different[:3])} came back different",
            fix='quantise when the server starts: quant.at = "load"',
        )


def _digests(model: Any) -> dict[str, str]:
    """Return a hash of each tensor of the model, the quantised layers' scales included."""
    import torch

    return {
        name: hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()
        for name, tensor in model.state_dict().items()
    }
