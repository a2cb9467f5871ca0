"""How byte-level BPE vocabularies cut text into words, by the name a GGUF gives in `tokenizer.ggml.pre`.

A GGUF carries the name only; the rules are each model family's own, as published in its tokenizer.json. llama.cpp
(src/llama-vocab.cpp) keeps the list of names and which family each belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass

from cogsmith.errors import ConversionError
from cogsmith.sources.gguf import USE_ORIGINAL


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Cuts applied one after the other; each isolates what its regular expression matches.

    `ignore_merges`: a word that is in the vocabulary is one token, whatever the merges say.
    `add_bos`: what holds where the file does not say `add_bos_token`.
    `nfc`: text is brought into Unicode's composed form first.
    """

    cuts: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    nfc: bool = False


_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ONE_DIGIT, _THREE_DIGITS = r"\p{N}", r"\p{N}{1,3}"
_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{_PUNCTUATION}|\s+(?!\S)|\s+"
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"  # noqa: RUF001 - the commas and full stops of several scripts


def _words(numbers: str) -> str:
    """Return the rule of Llama 3 and its kin, who differ in how many digits `numbers` takes at once."""
    return rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}|{_PUNCTUATION}[\r\n]*|{_SPACE}"


def _cased_words(numbers: str, suffix: str) -> str:
    """Return the rule of GPT-4o and its kin, which also cuts where lower case turns into upper case."""
    return (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{suffix}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{suffix}"
        rf"|{numbers}|{_PUNCTUATION}[\r\n/]*|{_SPACE}"
    )


_LLAMA3 = PreTokenizer((_words(_THREE_DIGITS),), ignore_merges=True, add_bos=True)
_LLAMA3_MERGED = PreTokenizer((_words(_THREE_DIGITS),))
_QWEN2 = PreTokenizer((_words(_ONE_DIGIT),), nfc=True)
_GPT2_ONLY = PreTokenizer((_GPT2,))
_DIGITS_GPT2 = PreTokenizer((_ONE_DIGIT, _GPT2))
_GPT4O = PreTokenizer((_cased_words(_THREE_DIGITS, _SUFFIX + "?"),))

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "exaone4", "granite-docling"), _GPT2_ONLY),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS_GPT2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), _LLAMA3_MERGED),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
    **dict.fromkeys(("stablelm2", "hunyuan"), PreTokenizer((_words(_ONE_DIGIT),))),
    **dict.fromkeys(("gpt-4o", "llama4"), _GPT4O),
    "tekken": PreTokenizer((_cased_words(_ONE_DIGIT, ""),), ignore_merges=True, add_bos=True),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    "bloom": PreTokenizer((_BLOOM,)),
}


def find_pre_tokenizer(name: str | None) -> PreTokenizer:
    """Return the rules called `name`. Raises ConversionError for none and for unknown ones: a guess gives wrong ids."""
    if name is None:
        raise ConversionError(
            "the GGUF file does not name its pre-tokenizer (tokenizer.ggml.pre), so its token ids cannot be known",
            fix="use a file converted after April 2024, or the model's original weights",
        )
    if name not in PRE_TOKENIZERS:
        raise ConversionError(
            f"pre-tokenizer {name!r} (tokenizer.ggml.pre) is not supported; "
            f"supported: {', '.join(sorted(PRE_TOKENIZERS))}",
            fix=USE_ORIGINAL,
        )
    return PRE_TOKENIZERS[name]
