"""A Composer checkpoint into a Hugging Face checkpoint folder: the model and its tokenizer, and nothing of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cogsmith.config.model import Precision
from cogsmith.errors import SourceError
from cogsmith.sources.base import Reporter, SourceFile
from cogsmith.sources.composer.base import choose_base, read_base
from cogsmith.sources.composer.checkpoint import Checkpoint, opened_checkpoint
from cogsmith.sources.composer.config import check_known, clean_config, model_class_name, ties_of
from cogsmith.sources.composer.files import choose, is_checkpoint
from cogsmith.sources.composer.lora import fold
from cogsmith.sources.composer.mosaicgpt import as_known_model, is_mosaics
from cogsmith.sources.composer.tokenizer_files import check_fits, write_given, write_saved
from cogsmith.sources.composer.weights import Weights, cast, take_weights, without_copies
from cogsmith.sources.importer import Listing, Options, Part
from cogsmith.sources.selection import CONFIG
from cogsmith.sources.silent import quiet_libraries
from cogsmith.sources.write_safetensors import write_checkpoint


class ComposerImporter:
    """Reads what Composer's Trainer saves. Implements `importer.Importer`."""

    name = "composer"
    version = 3
    packages = ("numpy", "protobuf", "safetensors", "sentencepiece", "tokenizers", "torch", "transformers")
    extra = "engine,import"

    def recognises(self, files: Sequence[SourceFile]) -> bool:
        """Tell by names alone whether there is a Composer checkpoint among `files`."""
        return is_checkpoint(files)

    def select(self, listings: Sequence[Listing], options: Options) -> Sequence[tuple[SourceFile, ...]]:
        """Return the files of the checkpoint that is meant. Raises SourceError with what speaks against it."""
        unused = [name for name in ("llama_type", "llama_config") if getattr(options, name)]
        if len(listings) > 2:
            unused.append("more than a base and a checkpoint")
        if unused:
            raise SourceError(
                f"{listings[-1].uri} is a Composer checkpoint, which has no use for: {', '.join(unused)}",
                fix="leave that out, or say which format it is: format",
            )
        *bases, checkpoint = listings
        return (*map(choose_base, bases), choose(checkpoint))

    def convert(self, parts: Sequence[Part], options: Options, folder: Path, reporter: Reporter) -> None:
        """Write config.json, the weights and the tokenizer into the empty `folder`.

        Tensors are read where they lie and cast one by one, so memory holds one at a time beside the file's own pages.
        Raises SourceError or ConversionError.
        """
        precision: Precision = options.output_precision or "fp32"
        base = read_base(parts[0]) if len(parts) > 1 else None
        stated = base.config if base else None
        with quiet_libraries(), opened_checkpoint(parts[-1], folder, reporter, stated) as checkpoint:
            weights = take_weights(checkpoint.tensors, checkpoint.name, reporter)
            if checkpoint.peft_config is not None:
                weights = fold(weights, checkpoint.peft_config, checkpoint.name, base.weights if base else None)
            config, weights = _as_known_model(checkpoint, weights, precision, own_code=options.own_code)
            if options.tokenizer is None and base and not checkpoint.tokenizer:
                options = replace(options, tokenizer=base.tokenizer)
            _write_tokenizer(checkpoint, config, options, folder, reporter)
            (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            write_checkpoint(folder, cast(weights.values(), precision), reporter=reporter)


def _as_known_model(
    checkpoint: Checkpoint, weights: Weights, precision: Precision, *, own_code: bool
) -> tuple[dict[str, Any], Weights]:
    """Return config.json's content and the tensors as transformers names them, copies left out."""
    adapted = checkpoint.peft_config is not None
    config = clean_config(checkpoint, precision)
    if is_mosaics(checkpoint) and not own_code:
        config, weights = as_known_model(config, weights)
    else:
        config["architectures"] = [model_class_name(checkpoint)]
        if not own_code:
            check_known(checkpoint, config)
    weights, all_equal = without_copies(weights, ties_of(config), may_differ=adapted)
    if not all_equal:
        # An adapter of the embedding alone is not one of the head that shared its weights before.
        config["tie_word_embeddings"] = False
    return config, weights


def _write_tokenizer(
    checkpoint: Checkpoint, config: Mapping[str, Any], options: Options, folder: Path, reporter: Reporter
) -> None:
    """Write the tokenizer given by hand, else the one that the run saved; a run need not have had one."""
    if options.tokenizer is not None:
        write_given(options.tokenizer, folder)
    elif not write_saved(checkpoint.tokenizer, folder, checkpoint.name, reporter):
        return
    check_fits(folder, config, checkpoint.name)
