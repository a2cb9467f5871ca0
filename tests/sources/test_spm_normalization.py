"""Compiled normalizations of SentencePiece: the same texts and ids as the `sentencepiece` library gives."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as messages
from tokenizers import normalizers
from transformers import AutoTokenizer

from cogsmith.errors import ConversionError
from cogsmith.sources import spm
from cogsmith.sources.probe import PROBE_TEXTS
from cogsmith.sources.spm_normalization import normalization_steps, read_rules

from .spm_models import TEXT, train

NAMES = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")
RESERVED = {chr(code) for code in range(0xFFF0, 0xFFF9)}
CHARACTERS = st.characters(exclude_categories=["Cs"]).filter(lambda letter: letter not in RESERVED)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The compiled rules of each name, as the library's own trainer writes them."""
    found = {}
    for name in NAMES:
        model = train(tmp_path_factory.mktemp(name), normalization_rule_name=name)
        found[name] = messages.ModelProto.FromString(model.read_bytes()).normalizer_spec.precompiled_charsmap
    return found


@cache
def written(charsmap: bytes) -> normalizers.Normalizer:
    """What is made of compiled rules; it takes seconds."""
    return normalizers.Sequence(normalization_steps(charsmap))


def library(name: str) -> sentencepiece.SentencePieceNormalizer:
    bare = dict.fromkeys(("add_dummy_prefix", "escape_whitespaces", "remove_extra_whitespaces"), False)
    return sentencepiece.SentencePieceNormalizer(rule_name=name, **bare)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_texts_are_normalized_as_the_library_does(maps: dict[str, bytes], name: str):
    ours, truth = written(maps[name]), library(name)
    rules = sorted(read_rules(maps[name]))
    draw = random.Random(0)
    texts = [*PROBE_TEXTS, *rules[::100]]
    texts += ["".join(draw.choices(rules, k=5)) + draw.choice(["", "\u0301", "\u200d", "\r\n"]) for _ in range(2000)]
    for text in texts:
        assert ours.normalize_str(text) == truth.normalize(text), ascii(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_and_every_character(maps: dict[str, bytes], name: str):
    ours, truth = written(maps[name]), library(name)
    characters = {chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000}
    for text in [*read_rules(maps[name]), *sorted(characters - RESERVED)]:
        assert ours.normalize_str(text) == truth.normalize(text), ascii(text)


@pytest.fixture(
    scope="module",
    params=[
        {},
        pytest.param({"byte_fallback": False}, marks=pytest.mark.slow),
        pytest.param({"model_type": "unigram"}, marks=pytest.mark.slow),
        pytest.param(
            {"model_type": "unigram", "byte_fallback": False, "normalization_rule_name": "nmt_nfkc_cf"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"remove_extra_whitespaces": False, "normalization_rule_name": "nfkc", "user_defined_symbols": ["<ud>"]},
            marks=pytest.mark.slow,
        ),
        pytest.param({"add_dummy_prefix": False, "vocab_size": 2000}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def usual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A model as the trainer makes it where nothing is said: normalized; with what `sentencepiece` reads of a text."""
    folder = tmp_path_factory.mktemp("usual")
    model = train(folder, **{"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True, **request.param})
    (folder / "written").mkdir()
    spm.write_tokenizer(model, folder / "written")
    return sentencepiece.SentencePieceProcessor(model_file=str(model)), AutoTokenizer.from_pretrained(
        folder / "written"
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.one_of(CHARACTERS, st.sampled_from(["e\u0302\u0323", "\u0301", " ", "\r\n", "ﬁ"])), max_size=30)
)
def test_any_text_has_the_same_ids(usual, parts):
    processor, loaded = usual
    text = "".join(parts)
    assert loaded(text)["input_ids"] == [processor.bos_id(), *processor.encode(text)]


def test_whole_documents_have_the_same_ids(usual):
    processor, loaded = usual
    for text in TEXT.read_text(encoding="utf-8").splitlines():
        assert loaded(text)["input_ids"] == [processor.bos_id(), *processor.encode(text)]


def with_rules(folder: Path, rules: str) -> Path:
    (folder / "rules.tsv").write_text(rules)
    return train(folder, normalization_rule_tsv=str(folder / "rules.tsv"), normalization_rule_name="")


def test_rules_of_ones_own_that_leave_what_nfkc_changes_are_refused(tmp_path: Path):
    model = with_rules(tmp_path, "61\t62\n")
    (tmp_path / "written").mkdir()
    with pytest.raises(ConversionError, match="a normalization of its own"):
        spm.write_tokenizer(model, tmp_path / "written")


def test_damaged_rules():
    for damaged in (b"x", b"\xff\xff\0\0" + bytes(100), b"\x04\0\0\0" + b"\xff" * 4):
        with pytest.raises(ConversionError, match=r"normalization is damaged|normalization of its own"):
            normalization_steps(damaged)
