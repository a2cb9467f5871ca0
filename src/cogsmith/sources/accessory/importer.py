"""LLaMA2-Accessory's and Meta's checkpoints into a Hugging Face folder: what is needed, then the way, top to bottom."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith.errors import SourceError
from cogsmith.sources.accessory import folder as names
from cogsmith.sources.accessory import params, tokenizer, types
from cogsmith.sources.accessory.inventory import Inventory
from cogsmith.sources.accessory.merge import Tensors
from cogsmith.sources.accessory.stack import rounded, stack
from cogsmith.sources.base import Reporter, SourceFile
from cogsmith.sources.importer import Listing, Options, Part
from cogsmith.sources.silent import quiet_libraries
from cogsmith.sources.write_safetensors import LazyTensor, write_checkpoint

if TYPE_CHECKING:
    import torch

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class AccessoryImporter:
    """Reads `consolidated.*` folders: a base, and then differences and overrides in their order."""

    name = "accessory"
    version = 2
    packages = ("protobuf", "safetensors", "sentencepiece", "tokenizers", "torch", "transformers")
    extra = "engine,import"

    def recognises(self, files: Sequence[SourceFile]) -> bool:
        """Tell by names alone whether a source is such a checkpoint."""
        return names.is_checkpoint([file.path for file in files])

    def select(self, listings: Sequence[Listing], options: Options) -> Sequence[tuple[SourceFile, ...]]:
        """Return shards, arguments and the tokenizer, listing by listing. Raises SourceError with every fault."""
        listed = [{file.path: file for file in listing.files} for listing in listings]
        found = [names.find(files) for files in listed]
        problems = [
            f"{listing.uri}: {problem}"
            for listing, one in zip(listings, found, strict=True)
            for problem in one.problems
        ]
        if found[0].family == "diff":
            problems.append(f"{listings[0].uri}: it holds differences; the weights they belong to must come first")
        problems += _not_said(listed, found[0], options)
        if problems:
            raise SourceError("\n".join(problems), fix="complete the folders, and set the keys that are named")
        chosen = _last_with_tokenizer(listed) if options.tokenizer is None else None
        return [
            tuple(files[name] for name in (*one.shards, *names.side_files(files, tokenizer=index == chosen)))
            for index, (files, one) in enumerate(zip(listed, found, strict=True))
        ]

    def convert(self, parts: Sequence[Part], options: Options, folder: Path, reporter: Reporter) -> None:
        """Write the checkpoint. Holds one tensor at a time. Raises SourceError or ConversionError."""
        llama_type = read_type(parts, options)
        model_type = types.find(llama_type)
        arguments = read_arguments(parts, options)
        tensors = rounded(stack(parts, arguments, reporter))
        inventory = Inventory(tensors, tuned=llama_type in types.TUNED)
        config = model_type.config(arguments, inventory, options.max_seq_len)
        vocabulary = _vocabulary(tensors, llama_type)
        lazy = list(model_type.tensors(arguments, inventory, vocabulary))
        inventory.finish(llama_type)
        if not (options.max_seq_len or "max_seq_len" in arguments):
            count = config["max_position_embeddings"]
            reporter.note(f"the context is taken to be {count} tokens: nothing says max_seq_len")
        with quiet_libraries():
            special = tokenizer.write(_tokenizer_part(parts, options), folder, config["max_position_embeddings"])
        _check_vocabulary(special, vocabulary, reporter)
        dtype = _dtype(lazy, options)
        _write_configs(folder, config, special, vocabulary, str(dtype).removeprefix("torch."))
        asked = dtype if options.output_precision else None
        write_checkpoint(folder, _as_type(lazy, asked), reporter=reporter)


def read_type(parts: Sequence[Part], options: Options) -> str:
    """Return llama_type: the user's word, else the last meta.json's; Meta's releases are llama. Raises SourceError."""
    if options.llama_type:
        return options.llama_type
    for part in reversed(parts):
        if names.META in part.places:
            stated = params.read_json(part.places[names.META]).get("llama_type")
            if not isinstance(stated, str):
                raise SourceError(f"{part.uri}: its meta.json names no llama_type", fix="say llama_type")
            return stated
    return "llama"


def read_arguments(parts: Sequence[Part], options: Options) -> dict[str, Any]:
    """Return the arguments of all parts and of the user's files, the later ones first. Raises SourceError."""
    found = [place for part in parts if (place := _arguments_file(part))]
    return params.merge([*found, *options.llama_config])


def _arguments_file(part: Part) -> Path | None:
    """Return Accessory's config.json or Meta's params.json; beside Meta's, a config.json is Hugging Face's."""
    wanted = (names.CONFIG, names.PARAMS)
    if names.find(part.places).family == "meta":
        wanted = (names.PARAMS, names.CONFIG)
    return next((part.places[name] for name in wanted if name in part.places), None)


def _not_said(listed: Sequence[Mapping[str, SourceFile]], base: names.Found, options: Options) -> list[str]:
    """Return what neither the folders nor the user says, by the key that says it; and a type that cannot be."""
    there = {name for files in listed for name in files}
    problems = []
    if options.llama_type:
        try:
            types.find(options.llama_type)
        except SourceError as error:
            problems.append(str(error))
    elif names.META not in there and base.family != "meta":
        problems.append("there is no meta.json to say what kind of model it is: name it by `llama_type`")
    if not options.llama_config and not there & {names.CONFIG, names.PARAMS}:
        problems.append("there is no config.json or params.json with the model's arguments: name one by `llama_config`")
    if options.tokenizer is None and _last_with_tokenizer(listed) is None:
        problems.append("there is no tokenizer.model, nor tokenizer.json: name one by `tokenizer`")
    return problems


def _last_with_tokenizer(listed: Sequence[Iterable[str]]) -> int | None:
    return next((index for index in reversed(range(len(listed))) if names.tokenizer_files(list(listed[index]))), None)


def _tokenizer_part(parts: Sequence[Part], options: Options) -> Part:
    if options.tokenizer is not None:
        return options.tokenizer
    index = _last_with_tokenizer([part.places for part in parts])
    if index is None:
        raise SourceError(f"{parts[-1].uri} holds no tokenizer", fix="name one by tokenizer")
    return parts[index]


def _vocabulary(tensors: Tensors, llama_type: str) -> int:
    """Return the embedding's rows. What config.json says of the vocabulary is often -1."""
    for name in types.EMBEDDINGS:
        if name in tensors:
            return tensors[name].shape[0]
    raise SourceError(
        f"the weights hold no embedding, which a {llama_type} has",
        fix="name the whole checkpoint first, and what was trained from it after that",
    )


def _check_vocabulary(special: tokenizer.Special, vocabulary: int, reporter: Reporter) -> None:
    if special.size > vocabulary:
        raise SourceError(
            f"the tokenizer has {special.size} ids, and the model's embedding {vocabulary}",
            fix="give the model's own tokenizer by `tokenizer`",
        )
    if special.size < vocabulary:
        reporter.note(f"the tokenizer has {special.size} ids, and the model's embedding {vocabulary}")


def _dtype(tensors: Sequence[LazyTensor], options: Options) -> torch.dtype:
    """Return what the user asked for, else what most weights are stored as."""
    import torch

    if options.output_precision:
        return getattr(torch, _DTYPES[options.output_precision])  # type: ignore[no-any-return]
    return Counter(tensor.dtype for tensor in tensors).most_common(1)[0][0]


def _write_configs(
    folder: Path, config: dict[str, Any], special: tokenizer.Special, vocabulary: int, dtype: str
) -> None:
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos}
    # EOS is what transformers pads with where nothing else is named.
    padding = special.eos if special.pad is None else special.pad
    # transformers 4 reads torch_dtype, transformers 5 dtype.
    kind = {"dtype": dtype, "torch_dtype": dtype}
    whole = {**config, "vocab_size": vocabulary, "tie_word_embeddings": False, "use_cache": True, **ids, **kind}
    _write_json(folder / "config.json", whole)
    _write_json(folder / "generation_config.json", {**ids, "pad_token_id": padding})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _as_type(tensors: Iterable[LazyTensor], dtype: torch.dtype | None) -> Iterable[LazyTensor]:
    """Yield the tensors as `dtype`, each number rounded once; as they are stored where that is None."""
    for tensor in tensors:
        target = dtype or tensor.dtype
        yield replace(tensor, dtype=target, make=partial(_round, tensor, target))


def _round(tensor: LazyTensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.make().to(dtype)
