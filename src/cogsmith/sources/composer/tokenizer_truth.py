"""How a saved tokenizer's files are read by the `tokenizers` library, without transformers.

Transformers builds its tokenizers anew from these files; here each kind is put together by its algorithm's own rules,
so that the two can be compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError
from cogsmith.sources.probe import Excuse, ReadText
from cogsmith.sources.tokenizer_files import read_tokenizer_json

if TYPE_CHECKING:
    from tokenizers import AddedToken

TOKENIZER_CONFIG = "tokenizer_config.json"

_OF_BERT = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
_OF_GPT2 = ("GPT2Tokenizer",)
_BY_HAND = "give the model a tokenizer with a tokenizer.json by `tokenizer`"
_MANY = 40
"""Special tokens that are probed; some models have hundreds of a kind."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What a text's ids are by the files, and how the special tokens are spelled; `excuse` is check_same_ids'."""

    read: ReadText
    specials: tuple[str, ...]
    excuse: Excuse | None = None


def truth_of(folder: Path) -> Truth:
    """Return how the files in `folder` are to be read. Raises ConversionError where they do not say it all."""
    said = read_json(folder / TOKENIZER_CONFIG)
    if (folder / "tokenizer.json").is_file():
        tokenizer = read_tokenizer_json(folder)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    elif (folder / "vocab.txt").is_file() and _kind(said, _OF_BERT):
        tokenizer = _of_bert(folder, said)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file() and _kind(said, _OF_GPT2):
        tokenizer = _of_gpt2(folder, said)
    else:
        names = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
        raise ConversionError(
            f"the tokenizer {said.get('tokenizer_class') or '(of no class)'} was saved as {names}, "
            "which do not say how it reads a text",
            fix=_BY_HAND,
        )
    specials = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    return Truth(lambda text: list(tokenizer.encode(text).ids), tuple(specials[:_MANY]))


def added_tokens(folder: Path) -> dict[int, AddedToken]:
    """Return the tokens beside the vocabulary by id: of tokenizer_config.json and, as of old, added_tokens.json."""
    from tokenizers import AddedToken

    old = read_json(folder / "added_tokens.json")
    found = {index: AddedToken(token, special=False, normalized=False) for token, index in old.items()}
    for index, token in (read_json(folder / TOKENIZER_CONFIG).get("added_tokens_decoder") or {}).items():
        rules = ("lstrip", "normalized", "rstrip", "single_word", "special")
        found[int(index)] = AddedToken(token["content"], **{rule: bool(token.get(rule)) for rule in rules})
    return found


def add_token(tokenizer: Any, index: int, token: AddedToken) -> None:
    """Add `token` to a tokenizer of the `tokenizers` library. Raises ConversionError where it cannot have the id."""
    (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    if (have := tokenizer.token_to_id(token.content)) != index:
        raise ConversionError(
            f"the tokenizer's added token {token.content!r} has the id {index}, and comes out with {have}", fix=_BY_HAND
        )


def between(added: Mapping[int, AddedToken], read: ReadText) -> ReadText:
    """Return how a text is read in which `added` tokens, by their ids, are found first; `read` reads the rest.

    They go by their spelling and the spaces that they take with them. What they say of normalization counts for
    nothing, as in transformers' tokenizers of before release 5 that are written in Python.
    """
    if not added:
        return read
    longest_first = sorted(added.items(), key=lambda item: -len(item[1].content))
    ids = [index for index, _ in longest_first]
    cut = re.compile("|".join(f"({_with_spaces(token)})" for _, token in longest_first))

    def read_around(text: str) -> list[int]:
        found, end = [], 0
        for match in cut.finditer(text):
            found += [*_read_part(text[end : match.start()], read), ids[(match.lastindex or 1) - 1]]
            end = match.end()
        return [*found, *_read_part(text[end:], read)]

    return read_around


def _read_part(text: str, read: ReadText) -> list[int]:
    return read(text) if text else []


def _with_spaces(token: AddedToken) -> str:
    before, after = (r"\s*" if takes else "" for takes in (token.lstrip, token.rstrip))
    return f"{before}{re.escape(token.content)}{after}"


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; an empty one where there is no file. Raises ConversionError."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConversionError(f"{path.name} of the tokenizer is not JSON: {error}", fix=_BY_HAND) from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path.name} of the tokenizer is no JSON object", fix=_BY_HAND)
    return content


def _kind(said: Mapping[str, Any], kinds: tuple[str, ...]) -> bool:
    return str(said.get("tokenizer_class") or "").removesuffix("Fast") in kinds


def _of_bert(folder: Path, said: Mapping[str, Any]) -> Any:
    """WordPiece over BERT's own cutting: https://github.com/google-research/bert, tokenization.py."""
    from tokenizers import BertWordPieceTokenizer

    if said.get("do_basic_tokenize") is False or said.get("never_split"):
        raise ConversionError(
            "the tokenizer has do_basic_tokenize or never_split, which no tokenizer.json can say", fix=_BY_HAND
        )
    names = ("unk_token", "sep_token", "cls_token", "pad_token", "mask_token")
    specials = {name: _spelled(said[name]) for name in names if said.get(name)}
    tokenizer = BertWordPieceTokenizer(
        str(folder / "vocab.txt"),
        handle_chinese_chars=bool(said.get("tokenize_chinese_chars", True)),
        strip_accents=said.get("strip_accents"),
        lowercase=bool(said.get("do_lower_case", True)),
        **specials,
    )
    return _with_added(tokenizer, folder)


def _of_gpt2(folder: Path, said: Mapping[str, Any]) -> Any:
    """Byte-level BPE with GPT-2's cutting: https://github.com/openai/gpt-2, src/encoder.py."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=bool(said.get("add_prefix_space"))
    )
    if said.get("add_bos_token"):
        raise ConversionError("the tokenizer has add_bos_token, which GPT-2's files do not say", fix=_BY_HAND)
    specials = [_spelled(said[name]) for name in ("bos_token", "eos_token", "unk_token", "pad_token") if said.get(name)]
    known = tokenizer.get_vocab()
    tokenizer.add_special_tokens([token for token in dict.fromkeys(specials) if token in known])
    return _with_added(tokenizer, folder)


def _with_added(tokenizer: Any, folder: Path) -> Any:
    for index, token in sorted(added_tokens(folder).items()):
        add_token(tokenizer, index, token)
    # The wrapper of a kind, and the tokenizer within it, which knows its added tokens.
    return tokenizer._tokenizer


def _spelled(token: Any) -> str:
    return str(token["content"]) if isinstance(token, Mapping) else str(token)
