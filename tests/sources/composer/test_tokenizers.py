"""A run's tokenizer, in the old and the new encoding, and one that is given by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from cogsmith.errors import ConversionError, SourceError
from cogsmith.sources import torchfile
from cogsmith.sources.importer import Part

from .runs import FILE, FIXTURES, RUN, Notes, convert, edited, expected_ids, tokenizer_of

TEXTS = ("The quick brown fox", " two  spaces", "x\ny\tz", "naïve 中文 🙂", "THE Quick")


def as_stems(state: dict[str, Any]) -> None:
    """The keys of before Composer 0.16: a file's name without its ending; of two such names the later stays."""
    files = tokenizer_of(state)
    state["integrations"]["huggingface"]["tokenizer"] = {Path(name).stem: entry for name, entry in files.items()}


def saved(name: str) -> dict[str, Any]:
    return tokenizer_of(torchfile.load(FIXTURES / name / FILE)["state"])


def ids(folder: Path, texts: tuple[str, ...] = TEXTS) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text)["input_ids"] for text in texts]


def test_the_older_composer_saved_stems():
    assert "tokenizer_config" in saved("old_gpt2_full")
    assert "tokenizer_config.json" in saved("gpt2_full")


@pytest.mark.parametrize("name", ["gpt2_full", "bert", "llama_spm", "llama_fast"])
def test_both_encodings_give_the_same_files(name: str, tmp_path: Path):
    new, old = (
        convert(edited(name, tmp_path, change), tmp_path / at)
        for at, change in (("new", lambda state: None), ("old", as_stems))
    )
    assert {path.name: path.read_bytes() for path in new.iterdir()} == {
        path.name: path.read_bytes() for path in old.iterdir()
    }


@pytest.mark.parametrize("name", ["bert", "old_bert"])
def test_a_vocabulary_in_lines_has_no_line_more(name: str, tmp_path: Path):
    lines = next(entry["content"] for key, entry in saved(name).items() if key.startswith("vocab"))
    out = convert(FIXTURES / name, tmp_path / "out")
    assert (out / "vocab.txt").read_text(encoding="utf-8").split("\n") == lines
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) == len([line for line in lines if line])


def test_a_sentencepiece_model_reads_as_its_own_library_does(tmp_path: Path):
    out = convert(FIXTURES / "llama_spm", tmp_path / "out")
    processor = SentencePieceProcessor(model_proto=saved("llama_spm")["tokenizer.model"]["content"])
    assert ids(out) == [[processor.bos_id(), *processor.encode(text)] for text in TEXTS]


def test_added_tokens_behind_a_sentencepiece_model(tmp_path: Path):
    size = SentencePieceProcessor(model_proto=saved("llama_spm")["tokenizer.model"]["content"]).get_piece_size()
    rules = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}

    def add(state: dict[str, Any]) -> None:
        said = tokenizer_of(state)["tokenizer_config.json"]["content"]
        said["added_tokens_decoder"][str(size)] = {"content": "<pad>", **rules}
        said |= {
            "pad_token": "<pad>",
            "model_max_length": 32,
            "padding_side": "left",
            "chat_template": "{{ messages }}",
        }

    tokenizer = AutoTokenizer.from_pretrained(convert(edited("llama_spm", tmp_path, add), tmp_path / "out"))
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", size)
    assert (tokenizer.model_max_length, tokenizer.padding_side) == (32, "left")
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer("<pad>")["input_ids"][-1] == size


# The wanted ids below were read by LlamaTokenizer of transformers 4.57.6, the one in Python, with these added.
ADDED = {"<|user|>": {"normalized": True}, "<extra>": {"lstrip": True, "rstrip": True}, "<pad>": {"special": True}}
RULES = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False}


def as_ids(pieces: str, state: dict[str, Any], size: int) -> list[int]:
    """The ids of pieces that are written one behind the other, with spaces between."""
    processor = SentencePieceProcessor(model_proto=tokenizer_of(state)["tokenizer.model"]["content"])
    own = {token: size + place for place, token in enumerate(ADDED)}
    return [own.get(piece, processor.piece_to_id(piece)) for piece in pieces.split(" ")]


def with_added(names: tuple[str, ...], **said: Any) -> Callable[[dict[str, Any]], None]:
    """Add tokens as `save_pretrained` of that tokenizer writes them, into three files."""

    def change(state: dict[str, Any]) -> None:
        files = tokenizer_of(state)
        size = SentencePieceProcessor(model_proto=files["tokenizer.model"]["content"]).get_piece_size()
        content = files["tokenizer_config.json"]["content"]
        rules = {str(size + at): {"content": name, **RULES, **ADDED[name]} for at, name in enumerate(names)}
        content["added_tokens_decoder"] |= rules
        pad = {"pad_token": "<pad>"} if "<pad>" in names else {}
        content |= pad | said
        files["special_tokens_map.json"]["content"] |= pad
        added = {name: size + at for at, name in enumerate(names)}
        files["added_tokens.json"] = {"file_extension": ".json", "content": added}

    return change


def test_tokens_added_to_a_sentencepiece_model_in_python(tmp_path: Path):
    run = edited("llama_spm", tmp_path, with_added(tuple(ADDED)))
    tokenizer = AutoTokenizer.from_pretrained(convert(run, tmp_path / "out"))
    state = torchfile.load(run / FILE)["state"]
    size = len(tokenizer) - len(ADDED)
    want = {
        "x<|user|>x": "<s> ▁ x <|user|> ▁ x",
        " a <extra> b": "<s> ▁ ▁ a <extra> ▁ b",
        "<pad><pad>f": "<s> <pad> <pad> ▁ f",
    }
    assert {text: tokenizer(text)["input_ids"] for text in want} == {
        text: as_ids(pieces, state, size) for text, pieces in want.items()
    }


def test_a_sentencepiece_model_whose_tokens_have_no_space_behind_them(tmp_path: Path):
    """legacy = false, as Llama 2 says: a space comes in front of the text, and nowhere else."""
    run = edited("llama_spm", tmp_path, with_added((), legacy=False))
    tokenizer = AutoTokenizer.from_pretrained(convert(run, tmp_path / "out"))
    state = torchfile.load(run / FILE)["state"]
    want = {
        "  x</s>x </s> x": "<s> ▁ ▁ ▁ x </s> x ▁ </s> ▁ x",
        "</s>f": "<s> </s> f",
        "<s><s>": "<s> <s> <s>",
        " ": "<s> ▁ ▁",
        "": "<s>",
    }
    assert {text: tokenizer(text)["input_ids"] for text in want} == {
        text: as_ids(pieces, state, 0) for text, pieces in want.items()
    }


def test_what_a_sharded_checkpoint_loses_of_tokenizer_json_has_nothing_in_it(tmp_path: Path):
    """torch.distributed.checkpoint flattens dicts: one that is empty leaves no entry."""
    template = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    }

    def lose(state: dict[str, Any]) -> None:
        content = tokenizer_of(state)["tokenizer.json"]["content"]
        content |= {
            "post_processor": {"type": "Sequence", "processors": [template]},
            "normalizer": {"type": "Sequence"},
        }

    own = Tokenizer.from_str(json.dumps(saved(RUN)["tokenizer.json"]["content"]))
    assert ids(convert(edited(RUN, tmp_path, lose), tmp_path / "out")) == [own.encode(text).ids for text in TEXTS]


def test_a_tokenizer_that_transformers_would_build_anew_without_its_normalizer(tmp_path: Path):
    """The class LlamaTokenizer of transformers 5 takes vocabulary and merges, and a normalizer of its own."""

    def lower(state: dict[str, Any]) -> None:
        content = tokenizer_of(state)["tokenizer.json"]["content"]
        content["normalizer"]["normalizers"].insert(0, {"type": "Lowercase"})

    run = edited("llama_fast", tmp_path, lower)
    own = Tokenizer.from_str(json.dumps(tokenizer_of(torchfile.load(run / FILE)["state"])["tokenizer.json"]["content"]))
    want = [own.encode(text).ids for text in TEXTS]
    assert want != ids(convert(FIXTURES / "llama_fast", tmp_path / "plain"))
    assert ids(convert(run, tmp_path / "out")) == want


def without(*names: str) -> Callable[[dict[str, Any]], object]:
    return lambda state: [tokenizer_of(state).pop(name) for name in names]


def test_gpt2s_two_files_are_enough(tmp_path: Path):
    out = convert(edited(RUN, tmp_path, without("tokenizer.json")), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    for text, want in expected_ids(RUN).items():
        assert tokenizer(text)["input_ids"] == want


def test_paths_of_another_machine_go(tmp_path: Path):
    paths = {"name_or_path": "/home/me/x", "tokenizer_file": "/home/me/x/t.json", "special_tokens_map_file": "/x.json"}
    run = edited(RUN, tmp_path, lambda state: tokenizer_of(state)["tokenizer_config.json"]["content"].update(paths))
    said = json.loads((convert(run, tmp_path / "out") / "tokenizer_config.json").read_bytes())
    assert not said.keys() & paths.keys()
    assert said["eos_token"] == "<|endoftext|>"


def test_code_is_left_out_and_said(tmp_path: Path):
    notes = Notes()
    code = {"tokenization_mine.py": {"file_extension": ".py", "content": "import os"}}
    out = convert(edited(RUN, tmp_path, lambda state: tokenizer_of(state).update(code)), tmp_path / "out", notes)
    assert not list(out.glob("*.py"))
    assert [line for line in notes.lines if "tokenization_mine.py" in line]


def test_a_chat_template_comes_along(tmp_path: Path):
    template = {"chat_template.jinja": {"file_extension": ".jinja", "content": "{{ messages[0].content }}"}}
    out = convert(edited(RUN, tmp_path, lambda state: tokenizer_of(state).update(template)), tmp_path / "out")
    said = AutoTokenizer.from_pretrained(out).apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert said == "hi"


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "a/b.json", "a\\b.json", ".hidden.json"])
def test_a_name_outside_the_folder(name: str, tmp_path: Path):
    entry = {name: {"file_extension": ".json", "content": {}}}
    run = edited(RUN, tmp_path, lambda state: tokenizer_of(state).update(entry))
    with pytest.raises(SourceError, match="outside its folder"):
        convert(run, tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_name_of_the_models_own_files(name: str, tmp_path: Path):
    entry = {name: {"file_extension": ".json", "content": {"evil": True}}}
    out = convert(edited(RUN, tmp_path, lambda state: tokenizer_of(state).update(entry)), tmp_path / "out")
    assert not any(b"evil" in path.read_bytes() for path in out.iterdir())


@pytest.mark.parametrize(
    "entry",
    [{"content": {}}, {"file_extension": ".json"}, {"file_extension": ".json", "content": "text"}, 7,
     {"file_extension": ".exe", "content": b"MZ"}, {"file_extension": ".txt", "content": [1]}],
)  # fmt: skip
def test_entries_that_composer_does_not_save(entry: object, tmp_path: Path):
    run = edited(RUN, tmp_path, lambda state: tokenizer_of(state).update({"vocab2": entry}))
    with pytest.raises(SourceError, match="vocab2"):
        convert(run, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        (RUN, without("tokenizer.json", "vocab.json", "merges.txt"), "has no vocabulary"),
        (RUN, without("tokenizer.json", "merges.txt"), "do not say how it reads a text"),
        ("llama_spm", lambda state: tokenizer_of(state)["tokenizer_config.json"]["content"].update(
            tokenizer_class="T5Tokenizer"), "T5Tokenizer"),
        ("llama_spm", lambda state: tokenizer_of(state)["tokenizer_config.json"]["content"].update(
            add_eos_token=True), "add_eos_token"),
        ("bert", lambda state: tokenizer_of(state)["tokenizer_config.json"]["content"].update(
            do_basic_tokenize=False), "do_basic_tokenize"),
    ],
)  # fmt: skip
def test_files_that_do_not_say_how_a_text_is_read(name: str, change: Callable, word: str, tmp_path: Path):
    with pytest.raises(ConversionError, match=word) as caught:
        convert(edited(name, tmp_path, change), tmp_path / "out")
    assert "`tokenizer`" in str(caught.value.fix)


def given(folder: Path) -> Part:
    return Part(f"path:{folder}", {path.name: path for path in folder.iterdir() if path.is_file()})


def test_a_tokenizer_given_by_hand_wins(tmp_path: Path):
    own = convert(FIXTURES / "bert", tmp_path / "own")
    out = convert(FIXTURES / RUN, tmp_path / "out", tokenizer=given(own))
    assert ids(out) == ids(own)
    assert not (out / "merges.txt").exists()
    assert json.loads((out / "config.json").read_bytes())["model_type"] == "gpt2"


@pytest.mark.parametrize(("name", "file"), [("gpt2_full", "tokenizer.json"), ("llama_spm", "tokenizer.model")])
def test_a_single_file_by_hand(name: str, file: str, tmp_path: Path):
    own = convert(FIXTURES / name, tmp_path / "own")
    run = FIXTURES / ("gpt2_no_tokenizer" if name == "gpt2_full" else "llama_fast")
    out = convert(run, tmp_path / "out", tokenizer=Part("path:x", {file: own / file}))
    assert ids(out) == ids(own)


def test_a_sentencepiece_model_by_another_name(tmp_path: Path):
    own = convert(FIXTURES / "llama_spm", tmp_path / "own")
    given = Part("path:x", {"my-llama.model": own / "tokenizer.model"})
    assert ids(convert(FIXTURES / "llama_fast", tmp_path / "out", tokenizer=given)) == ids(own)


def test_a_tokenizer_with_more_ids_than_the_model(tmp_path: Path):
    own = convert(FIXTURES / "llama_spm", tmp_path / "own")
    with pytest.raises(ConversionError, match=r"ids up to \d+, and .* only 272"):
        convert(FIXTURES / RUN, tmp_path / "out", tokenizer=given(own))
