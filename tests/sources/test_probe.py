"""Whether a difference between two readings of a text is found, and said."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from cogsmith.errors import ConversionError
from cogsmith.sources.probe import PROBE_TEXTS, check_same_ids, load_tokenizer, probe_texts

BYTES = models.BPE({letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])


def byte_tokenizer() -> Tokenizer:
    """A tokenizer of 256 ids, one for each byte."""
    tokenizer = Tokenizer(BYTES)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


def saved(folder: Path, tokenizer: Tokenizer) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def read(text: str) -> list[int]:
    return byte_tokenizer().encode(text).ids


def test_the_same_reading_passes(tmp_path: Path):
    check_same_ids(read, saved(tmp_path, byte_tokenizer()))


FAULTS = {
    "composes": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.NFC()),
    "compatibility forms": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.NFKC()),
    "lower case": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Lowercase()),
    "strips the end": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Strip(left=False)),
    "strips the start": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Strip(right=False)),
    "joins spaces": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace(Regex(" +"), " ")),
    "drops carriage returns": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace("\r", "")),
    "drops NUL": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace("\0", "")),
    "drops joiners": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace("\u200d", "")),
    "takes the mark for a space": lambda tokenizer: setattr(
        tokenizer, "normalizer", normalizers.Replace("\u2581", " ")
    ),
    "finds a special token": lambda tokenizer: tokenizer.add_special_tokens(["</s>"]),
    "cuts long texts": lambda tokenizer: tokenizer.enable_truncation(20),
    "adds a space in front": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Prepend(" ")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(tmp_path: Path, name: str):
    other = byte_tokenizer()
    FAULTS[name](other)
    if name == "cuts long texts":
        # transformers ignores what a file says of truncation, which is why it is safe to leave it in.
        check_same_ids(read, saved(tmp_path, other))
        return
    with pytest.raises(ConversionError, match="the saved tokenizer reads"):
        check_same_ids(read, saved(tmp_path, other))


def test_the_message_has_the_text_and_both_readings(tmp_path: Path):
    with pytest.raises(ConversionError) as caught:
        check_same_ids(lambda text: [5, 6] if text == "a" else read(text), saved(tmp_path, byte_tokenizer()))
    assert f"'a' as {read('a')}, the source's as [5, 6]" in caught.value.message
    assert caught.value.fix


def test_of_long_readings_the_place_where_they_part_is_shown(tmp_path: Path):
    def other(text: str) -> list[int]:
        ids = read(text)
        return [*ids[:150], 255, *ids[151:]] if len(ids) > 200 else ids

    with pytest.raises(ConversionError) as caught:
        check_same_ids(other, saved(tmp_path, byte_tokenizer()))
    assert "255" in caught.value.message
    assert len(caught.value.message) < 2000


def test_bos_is_what_the_truth_leaves_out(tmp_path: Path):
    folder = saved(tmp_path, byte_tokenizer())
    with pytest.raises(ConversionError, match=r"'' as \[\], the source's as \[7\]"):
        check_same_ids(read, folder, bos=7)


def test_specials_are_looked_for(tmp_path: Path):
    other = byte_tokenizer()
    other.add_special_tokens(["<turn>"])
    folder = saved(tmp_path, other)
    check_same_ids(read, folder)
    with pytest.raises(ConversionError, match="'<turn>'"):
        check_same_ids(read, folder, specials=["<turn>"])


def test_what_cannot_be_loaded_is_said(tmp_path: Path):
    folder = saved(tmp_path, byte_tokenizer())
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConversionError, match="cannot load the tokenizer"):
        load_tokenizer(folder)


def test_the_texts_have_what_they_are_to_have():
    every = "".join(PROBE_TEXTS)
    assert "" in PROBE_TEXTS
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert unicodedata.normalize(form, every) != every
    scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in every}
    assert len(scripts) > 45
    for part in ("\u2581", "\0", "\r\n", "\t", " " * 100, "</s>", "\u200d", "\ufe0f", "\U0010ffff", "<0x0A>"):
        assert part in every
    assert list(probe_texts(["<a>"]))[len(PROBE_TEXTS)] == "<a>"
