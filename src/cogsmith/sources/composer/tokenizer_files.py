"""A tokenizer's files, as Composer saved them or as they were given by hand, in a checkpoint folder.

Composer saves, for each file that `save_pretrained` wrote, its "content" by its "file_extension": an object for .json,
lines for .txt, bytes for .model, text for .jinja and .py. Since 0.16 the key is the file's name; before, it was the
name without the ending, so that of tokenizer.json and tokenizer.model only the one that was saved last is there.

What is written is compared, text by text, with the same files as another library reads them (`tokenizer_truth`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cogsmith.errors import ConversionError, SourceError
from cogsmith.sources import spm
from cogsmith.sources.base import Reporter
from cogsmith.sources.composer.tokenizer_truth import (
    TOKENIZER_CONFIG,
    Truth,
    add_token,
    added_tokens,
    between,
    read_json,
    truth_of,
)
from cogsmith.sources.importer import Part
from cogsmith.sources.probe import ReadText, check_same_ids, load_tokenizer
from cogsmith.sources.selection import TOKENIZER_FILES, VOCABULARY_SUFFIXES, holds_vocabulary
from cogsmith.sources.spm_pipeline import MARK
from cogsmith.sources.tokenizer_files import read_tokenizer_json

_PATHS = frozenset(
    {"auto_map", "cache_dir", "merges_file", "name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file"}
)
"""What tokenizer_config.json says of the machine that it was saved on, or of code that does not come along."""

_GENERIC = "PreTrainedTokenizerFast"
"""The class that takes tokenizer.json as it stands."""

_OF_LLAMA = ("CodeLlamaTokenizer", "LlamaTokenizer")
"""The classes whose tokenizer.model, with BOS in front, is all that there is to them."""

_PARTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors",
          "decoder": "decoders"}  # fmt: skip
"""The parts of tokenizer.json, and where each that is a sequence has its steps."""

_SPECIALS = ("bos_token", "eos_token", "pad_token", "unk_token")
_BY_HAND = "give the model a tokenizer with a tokenizer.json by `tokenizer`"
_AGAIN = "save the checkpoint again, or " + _BY_HAND


def write_saved(saved: Mapping[str, Any], folder: Path, subject: str, reporter: Reporter) -> bool:
    """Write the files that Composer saved; say whether there were any. Raises SourceError or ConversionError."""
    files = {_file_name(key, entry, subject): _content(key, entry, subject) for key, entry in saved.items()}
    if left_out := sorted(name for name in files if not _is_tokenizers(name)):
        reporter.note(f"{subject}: left out, because nothing here reads or runs them: {', '.join(left_out)}")
    for name, content in files.items():
        if _is_tokenizers(name):
            (folder / name).write_bytes(content)
    if not files:
        return False
    if not holds_vocabulary(files):
        raise ConversionError(
            f"the tokenizer of {subject} has no vocabulary, only {', '.join(sorted(files))}", fix=_BY_HAND
        )
    _settle(folder)
    return True


def write_given(part: Part, folder: Path) -> None:
    """Write the tokenizer that was given by hand. Raises ConversionError."""
    files = {path: place for path, place in part.places.items() if _is_tokenizers(path)}
    for path, place in files.items():
        alone = len(files) == 1 and path.endswith(Path(spm.MODEL_FILE).suffix)
        shutil.copyfile(place, folder / (spm.MODEL_FILE if alone else path))
    _settle(folder)


def check_fits(folder: Path, config: Mapping[str, Any], subject: str) -> None:
    """Check that the model has a row for every id of the folder's tokenizer. Raises ConversionError."""
    rows = config.get("vocab_size")
    vocabulary = load_tokenizer(folder).get_vocab()
    highest = max(vocabulary.values(), default=-1)
    if isinstance(rows, int) and highest >= rows:
        raise ConversionError(
            f"the tokenizer has ids up to {highest}, and {subject} only {rows} of them: they do not belong together",
            fix="give the tokenizer that the model was trained with by `tokenizer`",
        )


def _settle(folder: Path) -> None:
    """Make the files in `folder` read as they did in the run, and prove it. Raises ConversionError."""
    _drop_paths(folder)
    if not (folder / "tokenizer.json").is_file() and (folder / spm.MODEL_FILE).is_file():
        _from_sentencepiece(folder)
        return
    truth = truth_of(folder)
    try:
        _check(folder, truth)
    except ConversionError:
        # Some classes are built anew from vocabulary and merges, without the rest of tokenizer.json.
        if not (folder / "tokenizer.json").is_file():
            raise
        _edit_config(folder, {"tokenizer_class": _GENERIC})
        _check(folder, truth)


def _check(folder: Path, truth: Truth, *, bos: int | None = None) -> None:
    check_same_ids(truth.read, folder, specials=truth.specials, bos=bos, excuse=truth.excuse)
    loaded = load_tokenizer(folder)
    for name, want in _stated_specials(folder).items():
        if (have := getattr(loaded, name)) != want:
            raise ConversionError(f"the saved tokenizer has {name} {have!r}, the run's {want!r}", fix=_BY_HAND)


def _from_sentencepiece(folder: Path) -> None:
    """Write tokenizer.json from tokenizer.model, and keep what tokenizer_config.json says besides."""
    said = read_json(folder / TOKENIZER_CONFIG)
    kind = str(said.get("tokenizer_class") or _OF_LLAMA[-1]).removesuffix("Fast")
    if kind not in _OF_LLAMA or said.get("add_eos_token"):
        extra = " with add_eos_token" if said.get("add_eos_token") else ""
        raise ConversionError(
            f"only tokenizer.model was saved of a {kind}{extra}, which does not say what it puts around a text",
            fix=_BY_HAND,
        )
    specials, added = _stated_specials(folder), added_tokens(folder)
    model_file, add_bos = folder / spm.MODEL_FILE, bool(said.get("add_bos_token", True))
    # AutoTokenizer would take their tokens before these are in tokenizer.json, behind its vocabulary.
    for stale in ("added_tokens.json", "special_tokens_map.json"):
        (folder / stale).unlink(missing_ok=True)
    spm.write_tokenizer(model_file, folder, add_bos=add_bos)
    added = {index: token for index, token in added.items() if index >= spm.vocabulary_size(model_file)}
    read = between(added, spm.reader(model_file, add_bos=False))
    if said.get("legacy") is False and spm.puts_space_in_front(model_file):
        spm.put_one_space_in_front(folder)
        read = _with_one_space(between(added, spm.reader(model_file, add_bos=False, add_prefix=False)), folder, added)
    _add_tokens(folder, added)
    kept = ("chat_template", "model_max_length", "padding_side", "truncation_side")
    _edit_config(folder, {name: said[name] for name in kept if said.get(name) is not None} | specials)
    spelled = tuple(token.content for token in added.values())
    truth = Truth(read, (*spelled, *specials.values()), spm.rounding(model_file))
    _check(folder, truth, bos=spm.special_ids(model_file).bos if add_bos else None)


def _with_one_space(read: ReadText, folder: Path, added: Mapping[int, Any]) -> ReadText:
    """Return how LlamaTokenizer reads a text with legacy = false: a space in front of all, none behind each token.

    `read` puts none anywhere. (tokenize in transformers 4.57's models/llama/tokenization_llama.py)
    """
    tokenizer = read_tokenizer_json(folder)
    mark = tokenizer.token_to_id(MARK)
    special = {index for index, token in (tokenizer.get_added_tokens_decoder() | added).items() if token.special}

    def read_all(text: str) -> list[int]:
        ids = read(MARK + text.replace(MARK, " ")) if text else []
        return ids[1:] if len(ids) > 1 and ids[0] == mark and ids[1] in special else ids

    return read_all


def _add_tokens(folder: Path, added: Mapping[int, Any]) -> None:
    """Add tokens behind the vocabulary of tokenizer.json, by their ids. Raises ConversionError where there is a gap."""
    if not added:
        return
    tokenizer = read_tokenizer_json(folder)
    for index, token in sorted(added.items()):
        add_token(tokenizer, index, _as_spelled(token))
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")


def _as_spelled(token: Any) -> Any:
    """Return the same token, looked for in the text as it is.

    Normalized, it would be looked for with the space that the model puts in front.
    """
    from tokenizers import AddedToken

    rules = {rule: getattr(token, rule) for rule in ("lstrip", "rstrip", "single_word", "special")}
    return AddedToken(token.content, normalized=False, **rules)


def _stated_specials(folder: Path) -> dict[str, str]:
    """Return the special tokens that the files name: tokenizer_config.json before special_tokens_map.json."""
    said = read_json(folder / "special_tokens_map.json") | read_json(folder / TOKENIZER_CONFIG)
    found = {name: said[name] for name in _SPECIALS if said.get(name)}
    return {name: token["content"] if isinstance(token, Mapping) else str(token) for name, token in found.items()}


def _drop_paths(folder: Path) -> None:
    said = read_json(folder / TOKENIZER_CONFIG)
    if said.keys() & _PATHS:
        _write_json(folder / TOKENIZER_CONFIG, {key: value for key, value in said.items() if key not in _PATHS})


def _edit_config(folder: Path, changes: Mapping[str, Any]) -> None:
    _write_json(folder / TOKENIZER_CONFIG, {**read_json(folder / TOKENIZER_CONFIG), **changes})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_tokenizers(name: str) -> bool:
    return name in TOKENIZER_FILES or name.endswith(VOCABULARY_SUFFIXES)


def _file_name(key: Any, entry: Any, subject: str) -> str:
    """Return the name of a saved file. Raises SourceError for one that would leave the folder."""
    ending = entry.get("file_extension") if isinstance(entry, Mapping) else None
    if not isinstance(key, str) or not isinstance(ending, str) or "content" not in entry:
        raise SourceError(f"the tokenizer of {subject} has a file {key!r} that Composer does not save so")
    name = key if key.endswith(ending) else key + ending
    if name != Path(name).name or "\\" in name or name.startswith("."):
        raise SourceError(f"the tokenizer of {subject} has a file that would lie outside its folder: {name!r}")
    return name


def _content(key: str, entry: Mapping[str, Any], subject: str) -> bytes:
    """Return a saved file's bytes as they were before Composer took them apart."""
    ending, content = entry["file_extension"], entry["content"]
    if ending == ".model" and isinstance(content, bytes):
        return content
    try:
        text = _text(key, ending, content)
        encoded = None if text is None else text.encode()
    except (TypeError, ValueError) as error:  # what JSON has no form for, or half of a surrogate pair
        raise SourceError(
            f"the tokenizer of {subject} has a file {key!r} that is no text: {error}", fix=_AGAIN
        ) from error
    if encoded is None:
        raise SourceError(
            f"the tokenizer of {subject} has a file {key!r} with a {type(content).__name__} for {ending}", fix=_AGAIN
        )
    return encoded


def _text(key: str, ending: str, content: Any) -> str | None:
    """Return what a file of text held; None where `content` is nothing that Composer makes of one."""
    if ending == ".json" and isinstance(content, (Mapping, list)):
        if key.removesuffix(ending) == "tokenizer" and isinstance(content, Mapping):
            content = _with_empty_parts(content)
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if ending == ".txt" and isinstance(content, list) and all(isinstance(line, str) for line in content):
        # Exactly what was split: another newline at the end would be another token of a vocab.txt.
        return "\n".join(content)
    return content if ending in (".jinja", ".py") and isinstance(content, str) else None


def _with_empty_parts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer.json's content with what had nothing in it, and so has no place in a sharded checkpoint."""
    whole = dict(content)
    for part, steps in _PARTS.items():
        if isinstance(whole.get(part), Mapping):
            whole[part] = _with_empty_steps(whole[part], steps)
    if isinstance(model := whole.get("model"), Mapping) and model.get("type") == "BPE":
        whole["model"] = {"merges": [], **model}
    return whole


def _with_empty_steps(part: Any, steps: str) -> Any:
    if not isinstance(part, Mapping):
        return part
    if part.get("type") == "TemplateProcessing":
        return {"special_tokens": {}, **part}
    if part.get("type") != "Sequence":
        return part
    inner = part.get(steps, [])
    return {**part, steps: [_with_empty_steps(step, steps) for step in inner] if isinstance(inner, list) else inner}
