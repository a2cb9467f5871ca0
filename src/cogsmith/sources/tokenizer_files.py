"""A tokenizer's files in a Hugging Face folder: whether they agree, and tokenizer.json where it is lacking."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cogsmith.cache import atomic_folder
from cogsmith.errors import ConversionError, MissingExtra
from cogsmith.sources import spm
from cogsmith.sources.base import Reporter
from cogsmith.sources.hashing import sha256_file
from cogsmith.sources.made import hash_of
from cogsmith.sources.probe import check_same_ids, expect_ids, load_tokenizer, probe_texts, read_all
from cogsmith.sources.selection import CONFIG, TOKENIZER_FILES, VOCABULARY_SUFFIXES, holds_vocabulary

VERSION = 1
"""Counts up with every change that makes other files of the same ones; part of the cache's key."""

_JSON = "tokenizer.json"
_PACKAGES = ("protobuf", "sentencepiece", "tokenizers", "transformers")
_COMPLETE = (
    {"tokenizer.model"},
    {"spiece.model"},
    {"sentencepiece.bpe.model"},
    {"vocab.txt"},
    {"vocab.json", "merges.txt"},
)
"""Files that are a tokenizer, each kind whole, as older releases of transformers saved them."""
_LIKE_LLAMA = frozenset({"llama", "mistral", "mixtral"})
"""Model types whose tokenizer.model is read by LlamaTokenizer."""
_DEFAULTS_OF_LLAMA = {"add_bos_token": True, "add_eos_token": False}
_FIX = "give the model a tokenizer by `tokenizer`, or use weights that come with one"


def check_tokenizer(folder: Path) -> None:
    """Check that transformers can load the folder's tokenizer and reads tokenizer.json as it stands.

    Some classes of transformers are built anew from vocabulary and merges, without the file's other parts. What stands
    around a text (BOS) and special tokens within one are left out: tokenizer_config.json may rule both. Raises
    ConversionError.
    """
    loaded = load_tokenizer(folder)
    if not (folder / _JSON).is_file():
        return
    own = read_tokenizer_json(folder)
    own.no_truncation()
    own.no_padding()
    special = [token.content for token in own.get_added_tokens_decoder().values()]
    special += map(str, loaded.all_special_tokens)
    texts = [text for text in probe_texts() if not any(token in text for token in special)]
    for text, have in zip(texts, read_all(loaded, texts, add_special_tokens=False), strict=True):
        expect_ids(text, have, own.encode(text, add_special_tokens=False).ids)


def completed(
    places: Mapping[str, Path], digests: Mapping[str, str], cache: Path, reporter: Reporter
) -> dict[str, Path]:
    """Return the files that a checkpoint's tokenizer lacks, or that must change, by path; see `complete_tokenizer`.

    `places` are the checkpoint's files with their SHA-256 in `digests`. What is made is kept in the `cache`. Raises
    ConversionError for a tokenizer that cannot be written right, MissingExtra without the packages.
    """
    if _JSON in places or not any(kind <= places.keys() for kind in _COMPLETE):
        return {}
    needed = {path: digests[path] for path in places if path == CONFIG or _is_tokenizers(path)}
    packages = {name: version(name) for name in _PACKAGES if _is_installed(name)}
    if missing := sorted({"tokenizers", "transformers"} - packages.keys()):
        raise MissingExtra("engine", f"Converting a tokenizer (without {', '.join(missing)})")
    folder = cache / "tokenizer" / hash_of([VERSION, needed, packages])
    if not folder.is_dir():
        with atomic_folder(folder) as unfinished:
            for path in needed:
                shutil.copyfile(places[path], unfinished / path)
            with reporter.task("Converting the tokenizer", 1, unit="steps") as task:
                complete_tokenizer(unfinished)
                task.advance(1)
    made = {path.name: path for path in folder.iterdir()}
    return {name: path for name, path in made.items() if digests.get(name) != sha256_file(path, cache=cache)}


def complete_tokenizer(folder: Path) -> bool:
    """Write tokenizer.json where the folder has a tokenizer in other files only; say whether anything was written.

    A client is sent that file, and transformers 5 reads it more truly than the others. A SentencePiece model of a
    tokenizer like LLaMA's becomes what `sentencepiece` reads; transformers 5 reads those wrongly. Everything else
    becomes what transformers reads. tokenizer_config.json is changed where that is needed for the ids to be the same.
    Raises ConversionError where they cannot be.
    """
    if (folder / _JSON).is_file() or not holds_vocabulary(path.name for path in folder.iterdir()):
        return False
    config = _config(folder)
    if (folder / spm.MODEL_FILE).is_file() and _is_like_llama(folder, config):
        given = {**_DEFAULTS_OF_LLAMA, **config}
        spm.write_tokenizer(folder / spm.MODEL_FILE, folder, add_bos=bool(given["add_bos_token"]), keep=given)
        return True
    _save(folder, load_tokenizer(folder), config)
    return True


def _is_tokenizers(path: str) -> bool:
    return path in TOKENIZER_FILES or ("/" not in path and path.endswith(VOCABULARY_SUFFIXES))


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _is_like_llama(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.model is one as LLaMA has it: by its class, and where none is named, by the model's type."""
    named = config.get("tokenizer_class")
    if named:
        return str(named).removesuffix("Fast") == "LlamaTokenizer"
    model_type = json.loads((folder / CONFIG).read_bytes()).get("model_type") if (folder / CONFIG).is_file() else None
    return model_type in _LIKE_LLAMA


def _save(folder: Path, loaded: Any, config: Mapping[str, Any]) -> None:
    """Write what `loaded` is, with its own class if that reads the file right, else with the generic one."""
    specials = list(map(str, loaded.all_special_tokens))
    texts = list(probe_texts(specials))
    want = dict(zip(texts, read_all(loaded, texts), strict=True))
    tokenizer = loaded.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    (folder / _JSON).write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    try:
        check_same_ids(want.__getitem__, folder, specials=specials)
    except ConversionError:
        generic = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": list(loaded.model_input_names)}
        kept = {name: value for name, value in config.items() if name not in ("add_bos_token", "add_eos_token")}
        _write_config(folder, {**kept, **_named(loaded), **generic})
        check_same_ids(want.__getitem__, folder, specials=specials)


def read_tokenizer_json(folder: Path) -> Any:
    """Return the `tokenizers.Tokenizer` in the folder's tokenizer.json. Raises ConversionError."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / _JSON))
    except Exception as error:  # `tokenizers` raises bare Exceptions
        raise ConversionError(f"{folder / 'tokenizer.json'} cannot be read: {error}", fix=_FIX) from error


def _named(tokenizer: Any) -> dict[str, str]:
    """The special tokens by name: another class may have other ones by default."""
    names = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
    return {name: str(token) for name in names if (token := getattr(tokenizer, name)) is not None}


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConversionError(f"{folder / 'tokenizer_config.json'} is not JSON: {error}", fix=_FIX) from error
    return dict(content)


def _write_config(folder: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
