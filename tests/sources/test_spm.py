"""SentencePiece models as tokenizer.json: the ids are those of the `sentencepiece` library, for any text."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as messages
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from cogsmith.errors import ConversionError
from cogsmith.sources import spm
from cogsmith.sources.spm_rounding import Rounding

from .spm_models import OWN, TEXT, train

LLAMA = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
VARIANTS = {
    f"{'bytes' if fallback else 'unk'}-{'prefix' if prefix else 'bare'}-{'squeezed' if squeezed else 'kept'}-{own}": {
        "byte_fallback": fallback,
        "add_dummy_prefix": prefix,
        "remove_extra_whitespaces": squeezed,
        "user_defined_symbols": list(symbols),
        "control_symbols": ["<ctl>", "[X]"],
    }
    for fallback, prefix, squeezed, (own, symbols) in itertools.product(
        (True, False), (True, False), (True, False), (("plain", ()), ("own", OWN[:3]))
    )
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of one kind, and the folder that was written from it, with a model's config.json in it."""
    folder = tmp_path_factory.mktemp("model")
    model = train(folder, **VARIANTS[request.param])
    return model, written(model, folder / "written")


def written(model: Path, folder: Path, **settings) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(LLAMA)
    spm.write_tokenizer(model, folder, **settings)
    return folder


def plain(model: Path, text: str) -> list[int]:
    """What `sentencepiece` says, without anything of ours."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    return [processor.bos_id(), *processor.encode(text)]


# Letters of the training text, so that pieces are found, and any others; no control piece is spelled by chance.
LETTERS = st.one_of(
    st.sampled_from(sorted(set(TEXT.read_text(encoding="utf-8")))),
    st.sampled_from([" ", "  ", "\u2581", "\n", "\t", "ab", "##", "<ud>", "<0x41>", "the", "and"]),
    st.characters(exclude_categories=["Cs"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(LETTERS, max_size=40))
def test_any_text_has_the_same_ids(variant, parts):
    model, folder = variant
    text = "".join(parts)
    loaded = _loaded(folder)
    assert loaded(text)["input_ids"] == plain(model, text)


_LOADED = {}


def _loaded(folder: Path):
    if folder not in _LOADED:
        _LOADED[folder] = AutoTokenizer.from_pretrained(folder)
    return _LOADED[folder]


def test_whole_documents_have_the_same_ids_and_come_back(variant):
    model, folder = variant
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    lines = TEXT.read_text(encoding="utf-8").splitlines()
    draw = random.Random(0)
    for _ in range(20):
        text = "".join(
            draw.choice(lines)[draw.randint(0, 40) :] + draw.choice(["\n", " ", "  ", ""]) for _ in range(30)
        )
        assert _loaded(folder)(text)["input_ids"] == plain(model, text)
        ids = [index for index in processor.encode(text) if index != processor.unk_id()]
        assert _loaded(folder).decode(ids, skip_special_tokens=True) == processor.decode(ids)


def test_a_client_reads_tokenizer_json_in_the_same_way(variant):
    model, folder = variant
    sent = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXT.read_text(encoding="utf-8").splitlines():
        assert sent.encode(text).ids == plain(model, text)


def test_ids_and_pieces_of_ones_own(tmp_path: Path):
    model = train(
        tmp_path,
        unk_id=3,
        bos_id=5,
        eos_id=0,
        pad_id=4,
        unk_piece="<?>",
        bos_piece="[B]",
        eos_piece="[E]",
        pad_piece="[P]",
    )
    special = spm.special_ids(model)
    assert special == spm.SpecialIds(unk=3, bos=5, eos=0, pad=4)
    loaded = AutoTokenizer.from_pretrained(written(model, tmp_path / "written"))
    assert (loaded.unk_token_id, loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (3, 5, 0, 4)
    assert loaded("Hello")["input_ids"] == plain(model, "Hello")
    assert loaded("a[E]b")["input_ids"] == [*plain(model, "a"), 0, *plain(model, "b")[1:]]
    assert len(loaded) == spm.vocabulary_size(model)


def test_what_transformers_read_of_old_is_read(tmp_path: Path):
    """The ids of LlamaTokenizer of transformers 4, in Python on top of sentencepiece, with `legacy` true."""
    golden = json.loads((TEXT.parent / "slow.json").read_text(encoding="utf-8"))
    loaded = AutoTokenizer.from_pretrained(written(TEXT.parent / "llama_slow.model", tmp_path / "written"))
    for text, ids in zip(golden["texts"], golden["llama"], strict=True):
        assert loaded(text)["input_ids"] == ids, text


def test_without_bos(tmp_path: Path):
    model = train(tmp_path, bos_id=-1)
    assert spm.special_ids(model).bos is None
    with pytest.raises(ConversionError, match="has no BOS"):
        spm.write_tokenizer(model, tmp_path)
    loaded = AutoTokenizer.from_pretrained(written(model, tmp_path / "written", add_bos=False))
    assert loaded("Hello")["input_ids"] == plain(model, "Hello")[1:]


def test_what_else_the_config_is_to_say(tmp_path: Path):
    folder = written(train(tmp_path), tmp_path / "written", max_length=77, keep={"chat_template": "{{ x }}"})
    loaded = AutoTokenizer.from_pretrained(folder)
    assert (loaded.model_max_length, loaded.chat_template) == (77, "{{ x }}")
    assert (folder / "tokenizer.model").read_bytes() == (tmp_path / "tokenizer.model").read_bytes()


def test_the_same_model_gives_the_same_bytes(tmp_path: Path):
    model = train(tmp_path)
    first, second = (written(model, tmp_path / name) for name in ("first", "second"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def changed(model: Path, edit) -> Path:
    """Write the model again with another proto."""
    proto = messages.ModelProto.FromString(model.read_bytes())
    edit(proto)
    model.write_bytes(proto.SerializeToString())
    return model


def same_scores(proto: messages.ModelProto) -> None:
    long = [piece for piece in proto.pieces if piece.type == piece.NORMAL and len(set(piece.piece)) > 2]
    long[1].score = long[0].score


def test_runs_of_spaces_as_llamas_own_model_has_them(tmp_path: Path):
    """There, all pieces of nothing but spaces have one score, and some lengths are missing."""

    def add_runs(proto: messages.ModelProto) -> None:
        for length in (2, 4, 8, 5, 16, 6, 12, 13, 10, 14, 3, 9, 7):
            proto.pieces.add(piece="\u2581" * length, score=-1e9)

    model = changed(train(tmp_path, split_by_whitespace=True), add_runs)
    loaded = AutoTokenizer.from_pretrained(written(model, tmp_path / "written"))
    draw = random.Random(0)
    for text in [" " * length + "the" + " " * (length % 37) for length in range(200)]:
        assert loaded(text)["input_ids"] == plain(model, text)
    for _ in range(500):
        text = "".join(" " * draw.randint(1, 60) + draw.choice(["the", "x", "\n", "\u2581", "="]) for _ in range(5))
        assert loaded(text)["input_ids"] == plain(model, text)


REFUSED = {
    "words": ({"model_type": "word"}, None, "model_type 3"),
    "letters": ({"model_type": "char"}, None, "model_type 4"),
    "spaces at the end": ({"treat_whitespace_as_suffix": True}, None, "treat_whitespace_as_suffix"),
    "two pieces of one score": ({}, same_scores, "pieces of one score"),
    "an unused piece": ({}, lambda proto: setattr(proto.pieces[-1], "type", 5), "unused pieces"),
    "a rule of its own for text that comes out": (
        {},
        lambda proto: setattr(proto.denormalizer_spec, "precompiled_charsmap", b"x" * 100),
        "denormalizer|no SentencePiece model",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_exactly_is_refused(tmp_path: Path, name: str):
    options, edit, words = REFUSED[name]
    model = train(tmp_path, byte_fallback=False, **options)
    with pytest.raises(ConversionError, match=words) as caught:
        written(changed(model, edit) if edit else model, tmp_path / "written")
    assert caught.value.fix


def test_a_unigram_model_whose_pieces_have_one_order_is_written(tmp_path: Path):
    def no_repeats(proto: messages.ModelProto) -> None:
        keep = [
            piece
            for piece in proto.pieces
            if piece.type != piece.NORMAL
            or len(piece.piece) == 1
            or (piece.piece * 2).find(piece.piece, 1) == len(piece.piece)
        ]
        del proto.pieces[:]
        proto.pieces.extend(keep)

    model = changed(train(tmp_path, model_type="unigram", user_defined_symbols=["<ud>"]), no_repeats)
    folder = written(model, tmp_path / "written")
    for text in ("a<ud>b <ud><0x41>", *TEXT.read_text(encoding="utf-8").splitlines()):
        assert _loaded(folder)(text)["input_ids"] == plain(model, text)


def with_runs(proto: messages.ModelProto) -> None:
    """Runs of one letter whose scores let a longer run come out the same in several orders, and in several pieces."""
    for length in (2, 3, 5, 7):
        proto.pieces.add(piece="a" * length, score=-0.7 * length)


def test_a_unigram_model_is_written_whose_pieces_have_several_orders(tmp_path: Path):
    """SentencePiece's single precision chooses among them; whatever it takes, the text's score is the best there is."""
    model = changed(train(tmp_path, model_type="unigram", byte_fallback=False), with_runs)
    folder = written(model, tmp_path / "written")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    texts = [f"{front}{'a' * length}" for front in ("", "the ", "a b c d e f g ") for length in range(40)]
    same = [_loaded(folder)(text)["input_ids"] == plain(model, text) for text in texts]
    assert 0 < sum(same) < len(texts)
    for text in texts:
        ours, theirs = _loaded(folder)(text)["input_ids"][1:], processor.encode(text)
        assert processor.decode(ours) == processor.decode(theirs)
        scores = [math.fsum(map(processor.get_score, ids)) for ids in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_score_that_is_not_the_models_is_no_rounding(tmp_path: Path):
    def with_a_best_run(proto: messages.ModelProto) -> None:
        with_runs(proto)
        next(piece for piece in proto.pieces if piece.piece == "aaaaa").score += 0.005

    model = changed(train(tmp_path, model_type="unigram", byte_fallback=False), with_a_best_run)
    folder = written(model, tmp_path / "written")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    next(scored for scored in content["model"]["vocab"] if scored[0] == "aaaaa")[1] -= 0.01
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConversionError, match="the saved tokenizer reads"):
        spm.check(model, folder)


@pytest.mark.parametrize(
    ("have", "want", "is_rounding"),
    [
        ([1, 2], [2, 1], True),
        ([9, 1, 2, 9], [9, 2, 1, 9], True),
        ([1, 1, 1], [1, 2], False),  # one text, another score
        ([1, 2], [1, 2, 1], False),  # another text
        ([3], [2], False),  # the same score
        ([9, 1, 2], [1, 2, 9], False),  # an unknown letter elsewhere
        ([4, 1], [1, 5], True),  # other pieces, as near as one rounding
        ([4, 1], [1, 6], False),  # other pieces, near
    ],
)
def test_rounding_is_what_single_precision_may_come_to(have, want, is_rounding):
    pieces = {1: ("a", -1.5), 2: ("aa", -2.0), 3: ("bb", -2.0), 4: ("ab", -5.0), 5: ("ba", -5.0 - 2**-22)}
    pieces[6] = ("ba", -5.001)
    assert Rounding(pieces).explains("", have, want) is is_rounding


def test_a_file_that_is_no_model(tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ConversionError, match="is no SentencePiece model"):
        spm.special_ids(tmp_path / "tokenizer.model")


def test_a_changed_file_is_found(tmp_path: Path):
    model = train(tmp_path)
    folder = written(model, tmp_path / "written")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"]["normalizers"].pop(0)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConversionError, match="the saved tokenizer reads"):
        spm.check(model, folder)
