"""A prompt's ids are those of LLaMA2-Accessory: BOS, then the text's own, from either kind of tokenizer."""

from __future__ import annotations

import json

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from cogsmith.errors import CogsmithError, SourceError
from cogsmith.sources.accessory import tokenizer
from cogsmith.sources.importer import Part

from .folders import DATA, convert, copy, part
from .test_logits import check

TEXTS = ("the cat sat", " two  spaces ", "", "naïve\n\tcafé 猫", "a<|endoftext|>b")
SPM, HF = DATA / "llama", DATA / "llama_hf"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def hf(folder, source=HF, *, config=None, change=None):
    """Copy a Hugging Face tokenizer, with another tokenizer_config.json and changed by `change`."""
    folder.mkdir()
    loaded = Tokenizer.from_file(str(source / "tokenizer.json"))
    if change:
        change(loaded)
    loaded.save(str(folder / "tokenizer.json"))
    stated = json.loads((source / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**stated, **(config or {})}))
    return folder


def test_sentencepiece_ids_with_bos(out):
    special = tokenizer.write(part(SPM), out, 64)
    truth, loaded = SentencePieceProcessor(str(SPM / "tokenizer.model")), AutoTokenizer.from_pretrained(out)
    for text in TEXTS:
        assert loaded(text)["input_ids"] == [1, *truth.encode(text)], text
    assert special == tokenizer.Special(1, 2, None, 320)


def test_of_both_kinds_sentencepieces_is_taken(tmp_path):
    folder = copy("llama", tmp_path / "in")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((HF / name).read_bytes())
    check(convert([folder], tmp_path / "out", output_precision="fp32"), "llama")


def test_a_model_file_of_any_name_may_be_given(out):
    given = Part("path:/x/llama2.model", {"llama2.model": SPM / "tokenizer.model"})
    assert tokenizer.write(given, out, 64).size == 320
    assert AutoTokenizer.from_pretrained(out)("the cat")["input_ids"][0] == 1


def test_a_hugging_face_tokenizer_without_bos_has_eos_in_front(out):
    special = tokenizer.write(part(HF), out, 64)
    truth, loaded = Tokenizer.from_file(str(HF / "tokenizer.json")), AutoTokenizer.from_pretrained(out)
    for text in TEXTS:
        assert loaded(text)["input_ids"] == [0, *truth.encode(text, add_special_tokens=False).ids], text
    assert special == tokenizer.Special(0, 0, None, truth.get_vocab_size())


def add_specials(loaded):
    loaded.add_special_tokens(["<s>", "<pad>"])
    # As a tokenizer of a sentence classifier would: specials that a prompt must not have.
    ids = [("<pad>", loaded.token_to_id("<pad>")), ("<|endoftext|>", 0)]
    loaded.post_processor = TemplateProcessing(single="<pad> $A <|endoftext|>", special_tokens=ids)
    loaded.enable_truncation(3)
    loaded.enable_padding(length=9)


@pytest.mark.parametrize(
    "config",
    [
        {"bos_token": "<s>", "pad_token": "<pad>"},
        {"bos_token": {"content": "<s>", "special": True}, "pad_token": "<pad>", "auto_map": {"AutoTokenizer": "x.X"}},
        {"bos_token": "<s>", "pad_token": "<pad>", "tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False},
        {"bos_token": "<s>", "pad_token": "<pad>", "tokenizer_class": "GPT2Tokenizer", "add_eos_token": True},
    ],
)
def test_bos_is_forced_and_other_specials_are_not(config, tmp_path, out):
    source = hf(tmp_path / "source", config=config, change=add_specials)
    special = tokenizer.write(part(source), out, 64)
    truth, loaded = Tokenizer.from_file(str(HF / "tokenizer.json")), AutoTokenizer.from_pretrained(out)
    bos, pad = truth.get_vocab_size(), truth.get_vocab_size() + 1
    for text in (*TEXTS, "the cat " * 40):
        assert loaded(text)["input_ids"] == [bos, *truth.encode(text, add_special_tokens=False).ids], text
    assert special == tokenizer.Special(bos, 0, pad, pad + 1)


def test_special_tokens_may_be_in_their_own_file(tmp_path, out):
    source = hf(tmp_path / "source", config={"eos_token": None})
    (source / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    assert tokenizer.write(part(source), out, 64).eos == 0


@pytest.mark.parametrize("config", [{"eos_token": None}, {"eos_token": "</nowhere>"}])
def test_a_tokenizer_without_an_end_is_refused(config, tmp_path, out):
    with pytest.raises(SourceError, match="no end-of-sequence token"):
        tokenizer.write(part(hf(tmp_path / "source", config=config)), out, 64)


def test_files_that_are_no_tokenizer_are_refused(tmp_path, out):
    bad = hf(tmp_path / "bad")
    (bad / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match=r"tokenizer\.json is no tokenizer"):
        tokenizer.write(part(bad), out, 64)
    (bad / "tokenizer_config.json").unlink()
    with pytest.raises(SourceError, match="holds no tokenizer"):
        tokenizer.write(part(bad), out, 64)
    # Llama 3's tokenizer.model is a list of byte strings in base64, and no SentencePiece model.
    tiktoken = tmp_path / "tokenizer.model"
    tiktoken.write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(CogsmithError, match=r"tokenizer\.model"):
        tokenizer.write(Part("path:x", {"tokenizer.model": tiktoken}), out, 64)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    with pytest.raises(SourceError, match="tokenizer has 320 ids, and the model's embedding 64"):
        convert([DATA / "meta"], tmp_path / "out", tokenizer=part(SPM))
