"""Tokenizers rebuilt from GGUF metadata give llama.cpp's ids (see data/make_goldens.py)."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as messages

from cogsmith.errors import ConversionError
from cogsmith.sources.gguf.pretokenizers import PRE_TOKENIZERS
from cogsmith.sources.gguf.tokenizer import build_tokenizer

from .files import golden, tokenizer_metadata

TINY = golden("tiny.json")

# Where llama.cpp departs from the rule that the model family published and was trained with; we keep to the rule.
# Its case-aware rules leave out combining marks; its deepseek-coder does not set apart spaces such as U+2003,
# which lie within the published range.
MARKS = ("हिन्दी", "ภาษาไทย", "combining")
DEPARTS = {"gpt-4o": MARKS, "tekken": MARKS, "deepseek-coder": ("non\u00a0breaking",)}


def encode(metadata: dict[str, Any], text: str) -> list[int]:
    """Return the ids without BOS and EOS."""
    return build_tokenizer(metadata).tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", TINY["ids"])
def test_ids_are_those_of_llama_cpp(name: str):
    kind = "llama" if name == "llama" else "gpt2"
    tokenizer = build_tokenizer(tokenizer_metadata(kind, name)).tokenizer
    differ = [
        (text, tokenizer.encode(text, add_special_tokens=False).tokens)
        for text, ids in zip(TINY["texts"], TINY["ids"][name], strict=True)
        if not text.startswith(DEPARTS.get(name, ()))
        # Qwen's own tokenizer composes characters first and llama.cpp does not, so only composed text compares.
        and (name != "qwen2" or unicodedata.is_normalized("NFC", text))
        if tokenizer.encode(text, add_special_tokens=False).ids != ids
    ]
    assert differ == []


def test_qwen2_composes_characters():
    metadata = tokenizer_metadata("gpt2", "qwen2")
    assert encode(metadata, "e\u0301") == encode(metadata, "\u00e9")


@pytest.mark.parametrize("lengths", [(2, 3), (2, 3, 5), (3, 2, 4, 5), (2, 4, 8, 5, 16, 6, 12, 13, 10, 14, 3, 9, 7)])
def test_runs_of_spaces_of_one_score_are_joined_as_sentencepiece_joins_them(lengths: tuple[int, ...]):
    # LLaMA's are all of one score; the last of the lengths are its own.
    metadata = tokenizer_metadata("llama")
    tokens, types, scores = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type", "scores"))
    pieces = dict(zip(tokens, zip(types, scores, strict=True), strict=True))
    pieces |= {"\u2581" * length: (1, -1e9) for length in lengths}
    metadata["tokenizer.ggml.tokens"] = list(pieces)
    metadata["tokenizer.ggml.token_type"] = [kind for kind, _ in pieces.values()]
    metadata["tokenizer.ggml.scores"] = [score for _, score in pieces.values()]
    tokenizer, original = build_tokenizer(metadata).tokenizer, sentencepiece_of(pieces)
    for length in range(40):
        for text in (" " * length + "the", "a" + " " * length + "b"):
            assert tokenizer.encode(text, add_special_tokens=False).ids == original.encode(text)


def sentencepiece_of(pieces: dict[str, tuple[int, float]]) -> sentencepiece.SentencePieceProcessor:
    """Return the library's own tokenizer of the same pieces, with their types and scores, by LLaMA's rules."""
    model = messages.ModelProto()
    for text, (kind, score) in pieces.items():
        model.pieces.add(piece=text, type=kind, score=score)
    model.trainer_spec.model_type = messages.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("text", ["Hello, world!", "  two  spaces", "Größe 中文 😀", "x\n\n\ty"])
def test_text_comes_back(kind: str, text: str):
    tokenizer = build_tokenizer(tokenizer_metadata(kind)).tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_word_in_vocabulary_is_one_token_where_merges_are_ignored():
    metadata = tokenizer_metadata("gpt2", "llama-bpe")
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "zqzqz"]
    metadata["tokenizer.ggml.token_type"] = [*metadata["tokenizer.ggml.token_type"], 1]
    last = len(metadata["tokenizer.ggml.tokens"]) - 1
    assert encode(metadata, "zqzqz") == [last]
    assert last not in encode(metadata | {"tokenizer.ggml.pre": "dbrx"}, "zqzqz")


def test_without_space_prefix():
    metadata = tokenizer_metadata("llama") | {"tokenizer.ggml.add_space_prefix": False}
    tokens = metadata["tokenizer.ggml.tokens"]
    assert [tokens[index] for index in encode(metadata, "a")] == ["a"]
    assert [tokens[index] for index in encode(tokenizer_metadata("llama"), "a")] == ["▁a"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "text"),
        ({"add_bos_token": True}, "<s> text"),
        ({"add_eos_token": True}, "text </s>"),
        ({"add_bos_token": True, "add_eos_token": True}, "<s> text </s>"),
    ],
)
def test_bos_and_eos_are_added_where_the_file_says(flags: dict[str, bool], expected: str):
    metadata = tokenizer_metadata("llama") | {f"tokenizer.ggml.{key}": value for key, value in flags.items()}
    names = {"<s>": [1], "text": encode(metadata, "hi"), "</s>": [2]}
    have = build_tokenizer(metadata).tokenizer.encode("hi").ids
    assert have == [index for part in expected.split() for index in names[part]]


@pytest.mark.parametrize(
    ("kind", "pre", "adds"), [("llama", "", True), ("gpt2", "smollm", False), ("gpt2", "llama-bpe", True)]
)
def test_bos_default_is_llama_cpps(kind: str, pre: str, adds: bool):
    metadata = tokenizer_metadata(kind, pre)
    del metadata["tokenizer.ggml.add_bos_token"]
    assert build_tokenizer(metadata).config["add_bos_token"] is adds
    assert (build_tokenizer(metadata).tokenizer.encode("hi").ids[0] == 1) is adds


def test_every_end_of_generation_id_is_kept():
    ends = {"tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 2}
    assert build_tokenizer(tokenizer_metadata("gpt2") | ends).special.eos == (2, 7)


def test_named_tokens_are_special_whatever_their_type():
    metadata = tokenizer_metadata("gpt2")
    metadata["tokenizer.ggml.token_type"] = [1] * len(metadata["tokenizer.ggml.tokens"])
    assert encode(metadata, "<|im_start|><|im_end|>") == [1, 2]


def test_config_names_tokens_and_template():
    extra = {"tokenizer.chat_template": "{{ messages }}", "general.architecture": "llama", "llama.context_length": 99}
    config = build_tokenizer(tokenizer_metadata("gpt2") | extra).config
    expected = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    assert {key: config[key] for key in expected} == expected
    assert (config["chat_template"], config["model_max_length"]) == ("{{ messages }}", 99)
    assert "pad_token" not in config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pre": "no-such"}, "'no-such'.*supported: bloom, .*smollm"),
        ({"pre": None}, "does not name its pre-tokenizer"),
        ({"model": "bert"}, "'bert'.*supported: gpt2, llama"),
        ({"model": None}, "supported: gpt2, llama"),
        ({"eos_token_id": None}, "which token ends a sequence"),
        ({"bos_token_id": 10**6}, "bos_token_id is 1000000, outside"),
        ({"tokens": ["a", "b"]}, "2 tokens, 1200 types"),
        ({"tokens": ["a"] * 1200}, "'a' twice"),
        ({"merges": ["zz yy"]}, "vocabulary is damaged"),
    ],
)
def test_what_cannot_be_exact_is_refused(change: dict[str, Any], says: str):
    metadata = tokenizer_metadata("gpt2")
    for key, value in change.items():
        metadata[f"tokenizer.ggml.{key}"] = value
    if "tokens" not in change:
        metadata["tokenizer.ggml.token_type"] = [1] * len(metadata["tokenizer.ggml.tokens"])
    with pytest.raises(ConversionError, match=says) as caught:
        build_tokenizer(metadata)
    assert caught.value.fix


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_keeps_all_text(name: str):
    tokenizer = build_tokenizer(tokenizer_metadata("gpt2", name)).tokenizer
    for text in TINY["texts"]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        expected = unicodedata.normalize("NFC", text) if PRE_TOKENIZERS[name].nfc else text
        assert tokenizer.decode(ids, skip_special_tokens=False) == expected
