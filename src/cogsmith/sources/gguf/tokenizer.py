"""A Hugging Face tokenizer from a GGUF's own metadata.

Two kinds of vocabulary are read: `gpt2` (byte-level BPE) and `llama` (SentencePiece BPE with byte fallback).
Transformers' generic GGUF tokenizer is not used: it ignores the pre-tokenizer's digit rules and mistakes the
end-of-sequence token of common files. What comes out gives the ids that llama.cpp gives for the same file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError
from cogsmith.sources.gguf import USE_ORIGINAL
from cogsmith.sources.gguf.pretokenizers import PreTokenizer, find_pre_tokenizer
from cogsmith.sources.spm_pipeline import MARK, merges_by_score

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""`tokenizer.ggml.token_type`."""

_PREFIX = "tokenizer.ggml."
_NAMED = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "padding_token_id", "unk": "unknown_token_id"}


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids with a meaning. `eos` holds every id that ends a generation, the file's own EOS first."""

    eos: tuple[int, ...]
    bos: int | None
    pad: int | None
    unk: int | None


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """The tokenizer and what tokenizer_config.json says beside it."""

    tokenizer: Tokenizer
    special: SpecialIds
    config: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, the same bytes each time."""
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
        text = json.dumps(self.config, indent=2, ensure_ascii=False)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id with their types (`NORMAL` …) and, for SentencePiece, their scores."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]

    @property
    def ids(self) -> dict[str, int]:
        """Id by token."""
        return {token: index for index, token in enumerate(self.tokens)}


def build_tokenizer(metadata: Mapping[str, Any]) -> GgufTokenizer:
    """Build the tokenizer that a GGUF's `metadata` describes. Raises ConversionError if it cannot be done exactly."""
    kind = metadata.get(_PREFIX + "model")
    if kind not in ("gpt2", "llama"):
        raise ConversionError(
            f"GGUF tokenizer {kind!r} (tokenizer.ggml.model) is not supported; supported: gpt2, llama",
            fix=USE_ORIGINAL,
        )
    vocabulary = read_vocabulary(metadata)
    special = read_special_ids(metadata, len(vocabulary.tokens))
    if kind == "gpt2":
        rules = find_pre_tokenizer(metadata.get(_PREFIX + "pre"))
        tokenizer, bos_default = _byte_level(metadata, vocabulary, rules), rules.add_bos
    else:
        tokenizer, bos_default = _sentencepiece(metadata, vocabulary, special), True
    _add_tokens(tokenizer, vocabulary, special)
    config = _config(metadata, vocabulary, special, bos_default=bos_default)
    _add_template(tokenizer, config, special)
    return GgufTokenizer(tokenizer, special, config)


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Read the tokens. Raises ConversionError for lists that do not fit together and for tokens that occur twice."""
    listed = metadata.get(_PREFIX + "tokens", [])
    # llama.cpp names nameless tokens like this, to keep them apart.
    tokens = tuple(token or f"[EMPTY_{index}]" for index, token in enumerate(listed))
    types = tuple(metadata.get(_PREFIX + "token_type", [NORMAL] * len(tokens)))
    scores = tuple(metadata.get(_PREFIX + "scores", [0.0] * len(tokens)))
    if not tokens or not len(tokens) == len(types) == len(scores):
        raise ConversionError(
            f"the GGUF vocabulary is damaged: {len(tokens)} tokens, {len(types)} types, {len(scores)} scores",
            fix="fetch the file again",
        )
    twice, times = Counter(tokens).most_common(1)[0]
    if times > 1:
        raise ConversionError(f"the GGUF vocabulary holds the token {twice!r} twice", fix="fetch the file again")
    return Vocabulary(tokens, types, scores)


def read_special_ids(metadata: Mapping[str, Any], size: int) -> SpecialIds:
    """Read the ids with a meaning in a vocabulary of `size`. Raises ConversionError for a bad id or no EOS."""

    def read(key: str) -> int | None:
        value = metadata.get(_PREFIX + key)
        if value is not None and not 0 <= value < size:
            raise ConversionError(
                f"tokenizer.ggml.{key} is {value}, outside the vocabulary of {size} tokens", fix="fetch the file again"
            )
        return value

    named = {name: read(key) for name, key in _NAMED.items()}
    if named["eos"] is None:
        raise ConversionError(
            "the GGUF file does not say which token ends a sequence (tokenizer.ggml.eos_token_id)",
            fix=USE_ORIGINAL,
        )
    ends = (named["eos"], read("eot_token_id"), read("eom_token_id"))
    eos = tuple(dict.fromkeys(end for end in ends if end is not None))
    return SpecialIds(eos, named["bos"], named["pad"], named["unk"])


def _byte_level(metadata: Mapping[str, Any], vocabulary: Vocabulary, rules: PreTokenizer) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    merges = [_split_merge(merge) for merge in metadata.get(_PREFIX + "merges", [])]
    cuts = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in rules.cuts]
    tokenizer = Tokenizer(_bpe(models.BPE, vocabulary, merges, ignore_merges=rules.ignore_merges))
    bytes_as_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytes_as_letters])
    tokenizer.decoder = decoders.ByteLevel()
    if rules.nfc:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _split_merge(merge: str) -> tuple[str, str]:
    # A piece never holds a space: byte-level vocabularies write bytes as letters.
    left, _, right = merge.partition(" ")
    return left, right


def _sentencepiece(metadata: Mapping[str, Any], vocabulary: Vocabulary, special: SpecialIds) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    prefix = metadata.get(_PREFIX + "add_space_prefix", True)
    unknown = None if special.unk is None else vocabulary.tokens[special.unk]
    joinable = {
        token: score
        for token, kind, score in zip(vocabulary.tokens, vocabulary.types, vocabulary.scores, strict=True)
        if kind in (NORMAL, UNUSED)
    }
    merges = merges_by_score(joinable)
    tokenizer = Tokenizer(_bpe(models.BPE, vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token=unknown))
    spaces = normalizers.Replace(" ", MARK)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), spaces] if prefix else [spaces])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _bpe(bpe: Any, vocabulary: Vocabulary, merges: list[tuple[str, str]], **options: Any) -> Any:
    try:
        return bpe(vocabulary.ids, merges, **options)
    except Exception as error:  # the library raises the bare class, for a merge of tokens that do not exist
        raise ConversionError(f"the GGUF vocabulary is damaged: {error}", fix="fetch the file again") from error


def _add_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary, special: SpecialIds) -> None:
    """Let control and user-defined tokens be found whole in a text; only the former count as special.

    BOS, EOS, padding and unknown are special even where the file forgot to say so: transformers makes them so.
    """
    from tokenizers import AddedToken

    named = {*special.eos, special.bos, special.pad, special.unk}
    for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True)):
        if kind in (CONTROL, UNKNOWN) or index in named:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, special=False, normalized=False)])


def _config(
    metadata: Mapping[str, Any], vocabulary: Vocabulary, special: SpecialIds, *, bos_default: bool
) -> dict[str, Any]:
    ids = {"bos_token": special.bos, "eos_token": special.eos[0], "pad_token": special.pad, "unk_token": special.unk}
    context = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    template = metadata.get("tokenizer.chat_template")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: vocabulary.tokens[index] for name, index in ids.items() if index is not None},
        "add_bos_token": special.bos is not None and bool(metadata.get(_PREFIX + "add_bos_token", bos_default)),
        "add_eos_token": bool(metadata.get(_PREFIX + "add_eos_token", False)),
        "clean_up_tokenization_spaces": False,
        **({"model_max_length": context} if context else {}),
        **({"chat_template": template} if template else {}),
    }


def _add_template(tokenizer: Tokenizer, config: Mapping[str, Any], special: SpecialIds) -> None:
    """Put BOS and EOS around a text, where the file asks for them."""
    from tokenizers import processors

    used = []
    single, pair = ["$A:0"], ["$B:1"]
    if config["add_bos_token"]:
        used.append((config["bos_token"], special.bos))
        single.insert(0, config["bos_token"] + ":0")
        pair.insert(0, config["bos_token"] + ":1")
    if config["add_eos_token"]:
        used.append((config["eos_token"], special.eos[0]))
        single.append(config["eos_token"] + ":0")
        pair.append(config["eos_token"] + ":1")
    if used:
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=single + pair, special_tokens=used)
