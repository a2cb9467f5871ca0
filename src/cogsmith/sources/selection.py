"""Which files of a repository make a Hugging Face checkpoint. Everything else stays where it is.

Weights are looked for in the order of `from_pretrained`: one file before shards, safetensors before pickle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cogsmith.errors import SourceError
from cogsmith.sources.base import SourceFile

CONFIG = "config.json"
SIDE_FILES = frozenset(
    {
        CONFIG,
        "generation_config.json",
        "quantization_config.json",
        "quantize_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tekken.json",
        "chat_template.jinja",
        "chat_template.json",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
        "audio_tokenizer_config.json",
        # What sentence-transformers says of a model: how its vectors are made.
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
    }
)
SIDE_PATTERN = re.compile(
    r"[^/]+\.(model|tiktoken)|(additional_chat_templates|chat_templates)/[^/]+\.jinja|\d+_Pooling/config\.json"
)
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "tekken.json"})
TOKENIZER_FILES = VOCABULARIES | {
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
}
VOCABULARY_SUFFIXES = (".model", ".tiktoken")
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLE = ("pytorch_model.bin", "pytorch_model.bin.index.json")

ReadJson = Callable[[SourceFile], Mapping[str, Any]]


def select(files: Iterable[SourceFile], uri: str, read_json: ReadJson, *, allow_pickle: bool) -> tuple[SourceFile, ...]:
    """Return the files that the checkpoint needs, by path.

    `read_json` reads one of them, for a shard index. Raises SourceError where config.json or weights are missing,
    or where only pickle is there and `allow_pickle` is false.
    """
    by_path = {file.path: file for file in files}
    if CONFIG not in by_path:
        raise SourceError(f"{uri} has no {CONFIG}", fix=_remedy_without_config(by_path))
    weights = _weights(by_path, uri, read_json, SAFETENSORS)
    if not weights:
        weights = _weights(by_path, uri, read_json, PICKLE)
        _refuse(by_path, weights, uri, allow_pickle)
    side = [file for path, file in by_path.items() if path in SIDE_FILES or SIDE_PATTERN.fullmatch(path)]
    return tuple(sorted([*side, *weights], key=lambda file: file.path))


def python_files(files: Iterable[SourceFile]) -> list[str]:
    """Return the Python files, none of which is ever taken."""
    return sorted(file.path for file in files if file.path.endswith(".py"))


def tokenizer_files(files: Sequence[SourceFile]) -> tuple[SourceFile, ...]:
    """Return what is a tokenizer's among `files`; none where no vocabulary is there."""
    found = tuple(file for file in files if file.path in TOKENIZER_FILES or _is_vocabulary(file.path))
    return found if holds_vocabulary(file.path for file in found) else ()


def holds_vocabulary(paths: Iterable[str]) -> bool:
    """Tell whether one of the files holds the pieces of a tokenizer."""
    return any(_is_vocabulary(path) for path in paths)


def _is_vocabulary(path: str) -> bool:
    return path in VOCABULARIES or ("/" not in path and path.endswith(VOCABULARY_SUFFIXES))


def _weights(
    by_path: Mapping[str, SourceFile], uri: str, read_json: ReadJson, names: tuple[str, str]
) -> list[SourceFile]:
    single, index = names
    if single in by_path:
        return [by_path[single]]
    if index not in by_path:
        return []
    shards = _shards(read_json(by_path[index]), f"{index} of {uri}")
    missing = sorted(shards - by_path.keys())
    if missing:
        raise SourceError(
            f"{index} of {uri} names files that are not there: {', '.join(missing)}",
            fix="complete the upload or the copy of the weights, or name another revision",
        )
    return [by_path[index], *(by_path[shard] for shard in shards)]


def _shards(index: Mapping[str, Any], subject: str) -> set[str]:
    """Return the file names in a shard index: its "weight_map" gives one for each tensor."""
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise SourceError(f'{subject} has no "weight_map"', fix="save the checkpoint again")
    odd = [name for name in names.values() if not isinstance(name, str) or "/" in name or "\\" in name]
    if odd:
        raise SourceError(f"{subject} names a file outside its folder: {odd[0]!r}", fix="save the checkpoint again")
    return set(names.values())


def _refuse(by_path: Mapping[str, SourceFile], pickles: list[SourceFile], uri: str, allow_pickle: bool) -> None:
    if not pickles:
        raise SourceError(f"{uri} has no model.safetensors or shards of it", fix=_remedy_without_weights(by_path))
    if not allow_pickle:
        names = ", ".join(sorted(file.path for file in pickles))
        raise SourceError(
            f"{uri} has its weights as pickle only ({names}), and loading pickle can run any code",
            fix="convert them to safetensors, or say allow_pickle = true if you trust where they come from",
        )


def _remedy_without_config(by_path: Mapping[str, SourceFile]) -> str:
    if "adapter_config.json" in by_path:
        return "this is an adapter: name its base model, or merge the two and save the result"
    if any(path.endswith(".gguf") for path in by_path):
        return 'say format = "gguf"'
    return "name a repository or folder in the Hugging Face format, with config.json at its top"


def _remedy_without_weights(by_path: Mapping[str, SourceFile]) -> str:
    others = [
        path for path in sorted(by_path) if path.endswith((".safetensors", ".bin", ".pth", ".pt", ".gguf", ".h5"))
    ]
    if others:
        return (
            f"save the model with save_pretrained; what is there ({', '.join(others[:5])}) is not its weights by name"
        )
    return "name a repository or folder that holds the model's weights"
