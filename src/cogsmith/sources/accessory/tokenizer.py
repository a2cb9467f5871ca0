"""A checkpoint's tokenizer as transformers reads it, with BOS before every prompt and nothing else around it.

LLaMA2-Accessory reads SentencePiece's tokenizer.model, else Hugging Face's files, and encodes a prompt as BOS and the
text's own ids without further specials; where a Hugging Face tokenizer has no BOS, EOS stands for it
(accessory/model/tokenizer.py).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError, SourceError
from cogsmith.sources import spm
from cogsmith.sources.accessory.folder import HF_EXTRAS, HF_TOKENIZER, tokenizer_files
from cogsmith.sources.accessory.params import read_json
from cogsmith.sources.importer import Part
from cogsmith.sources.probe import check_same_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TOKENIZER, _CONFIG = HF_TOKENIZER
_ROLES = ("bos_token", "eos_token", "pad_token")


@dataclass(frozen=True, slots=True)
class Special:
    """Ids with a meaning, None where there is none, and how many ids there are."""

    bos: int | None
    eos: int | None
    pad: int | None
    size: int


def write(part: Part, folder: Path, max_length: int) -> Special:
    """Write the tokenizer of `part` into `folder`, so that AutoTokenizer reads it as LLaMA2-Accessory does.

    `max_length` is the model's context in tokens. Raises SourceError for files that are no tokenizer, ConversionError
    for one that cannot be written exactly.
    """
    files = tokenizer_files(part.places)
    if not files:
        raise SourceError(
            f"{part.uri} holds no tokenizer",
            fix="name a tokenizer.model, or a folder with tokenizer.json and tokenizer_config.json",
        )
    if len(files) > 1:
        return _write_hf(part, folder)
    model = part.places[files[0]]
    special = spm.write_tokenizer(model, folder, max_length=max_length)
    return Special(special.bos, special.eos, special.pad, spm.vocabulary_size(model))


def _write_hf(part: Part, folder: Path) -> Special:
    """Copy Hugging Face's files, with a template in tokenizer.json that puts BOS in front and no other special."""
    tokenizer = _load(part.places[_TOKENIZER])
    config = read_json(part.places[_CONFIG])
    for name in HF_EXTRAS:
        if name in part.places:
            shutil.copyfile(part.places[name], folder / name)
    tokens = _special_tokens(part, config)
    ids = {role: index for role, token in tokens.items() if (index := tokenizer.token_to_id(token)) is not None}
    if "eos_token" not in ids:
        raise SourceError(
            f"{part.uri}: its tokenizer has no end-of-sequence token that it knows (eos_token is "
            f"{tokens.get('eos_token')!r})",
            fix=f"name one in {_CONFIG}, or give another tokenizer by `tokenizer`",
        )
    front = "bos_token" if "bos_token" in ids else "eos_token"
    _put_in_front(tokenizer, tokens[front], ids[front])
    (folder / _TOKENIZER).write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    # Any other class would be rebuilt from its parts when it is loaded, and the template with it.
    config = {key: value for key, value in config.items() if key != "auto_map"}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": tokens[front]}
    config |= {"add_bos_token": True, "add_eos_token": False}
    (folder / _CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _check(part, folder, ids[front])
    return Special(ids[front], ids["eos_token"], ids.get("pad_token"), tokenizer.get_vocab_size())


def _load(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise SourceError(f"{path} is no tokenizer: {error}", fix="fetch or save the file again") from error
    # A prompt is read whole, whatever the file says.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_tokens(part: Part, config: dict[str, Any]) -> dict[str, str]:
    """Return the special tokens by their role, as tokenizer_config.json or special_tokens_map.json spells them."""
    extra = part.places.get(HF_EXTRAS[0])
    stated = {**(read_json(extra) if extra else {}), **{key: config[key] for key in _ROLES if config.get(key)}}
    spelled = {role: stated.get(role) for role in _ROLES}
    plain = {role: token.get("content") if isinstance(token, dict) else token for role, token in spelled.items()}
    return {role: token for role, token in plain.items() if isinstance(token, str)}


def _put_in_front(tokenizer: Tokenizer, token: str, index: int) -> None:
    from tokenizers.processors import TemplateProcessing

    template = f"{token} $A"
    try:
        tokenizer.post_processor = TemplateProcessing(
            single=[token, "$A"], pair=[token, "$A", "$B:1"], special_tokens=[(token, index)]
        )
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ConversionError(
            f"{template!r} cannot be a tokenizer's template: {error}", fix="give another tokenizer by `tokenizer`"
        ) from error


def _check(part: Part, folder: Path, front: int) -> None:
    """Compare what was written with the source's own file, read by the library that its program uses."""
    source = _load(part.places[_TOKENIZER])
    specials = [token.content for token in source.get_added_tokens_decoder().values() if token.special]

    def read(text: str) -> list[int]:
        return list(source.encode(text, add_special_tokens=False).ids)

    check_same_ids(read, folder, specials=specials, bos=front)
