"""A SentencePiece model as files that transformers 5 reads right: tokenizer.json above all.

A bare tokenizer.model is not enough: transformers 5 rebuilds its classes for such tokenizers from vocabulary and
merges and leaves out the normalizer, so that ids come out wrong, without a warning. Here the model's own proto becomes
a whole tokenizer.json (`spm_pipeline`), which the generic class reads as it stands. Whatever comes out is compared
with the `sentencepiece` library; a model that cannot be written exactly is refused.

One thing is as transformers has it: a control piece spelled out in a text, such as `</s>`, is that piece. SentencePiece
never finds control pieces in a text. The text before and after is read as texts of their own.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogsmith.errors import ConversionError, MissingExtra
from cogsmith.sources.probe import PROBE_TEXTS, Excuse, ReadText, check_same_ids, load_tokenizer
from cogsmith.sources.spm_normalization import read_rules
from cogsmith.sources.spm_pipeline import MARK, Kind, Piece, Rules, build_tokenizer, unigram_scores
from cogsmith.sources.spm_rounding import Rounding

MODEL_FILE = "tokenizer.model"

_PACKAGES = ("google.protobuf", "sentencepiece", "tokenizers", "transformers")
_RANDOM_TEXTS = 500
_PIECES_AT_ONCE = 24
_LONGEST_RUN = 80
_RULES_PASSED = 50
_ONLY_HF = "give the model the tokenizer.json that its makers publish, by `tokenizer`"


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids with a meaning; None where the model has none. Every model has `unk`."""

    unk: int
    bos: int | None
    eos: int | None
    pad: int | None


def special_ids(model_file: Path) -> SpecialIds:
    """Return the ids with a meaning of the model in `model_file`. Raises ConversionError for a file that is none."""
    processor = _load(model_file)
    bos, eos, pad = (
        index if index >= 0 else None for index in (processor.bos_id(), processor.eos_id(), processor.pad_id())
    )
    return SpecialIds(processor.unk_id(), bos, eos, pad)


def vocabulary_size(model_file: Path) -> int:
    """Return how many pieces the model has. Raises ConversionError for a file that is none."""
    return int(_load(model_file).get_piece_size())


def reader(model_file: Path, *, add_bos: bool = True, add_prefix: bool = True) -> ReadText:
    """Return how the `sentencepiece` library itself reads a text, with BOS in front where `add_bos` says so.

    Without `add_prefix`, no space comes in front, whatever the model says. Control pieces that are spelled out are
    found as transformers does; see the module's text. Raises ConversionError.
    """
    processor = _load(model_file) if add_prefix else _without_prefix(_load(model_file))
    front = [_bos(model_file)] if add_bos else []
    found = {piece.text: piece.id for piece in _pieces(processor) if piece.kind in (Kind.CONTROL, Kind.UNKNOWN)}
    longest_first = sorted(found, key=len, reverse=True)
    cut = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def read(text: str) -> list[int]:
        parts = [[found[part]] if part in found else processor.encode(part) for part in cut.split(text) if part]
        return [*front, *(index for part in parts for index in part)]

    return read


def puts_space_in_front(model_file: Path) -> bool:
    """Tell whether the model puts a space in front of a text. Raises ConversionError."""
    return bool(_proto(_load(model_file)).normalizer_spec.add_dummy_prefix)


def put_one_space_in_front(folder: Path) -> None:
    """Change the tokenizer.json that `write_tokenizer` wrote: a space in front of a text, and none behind its tokens.

    Raises ConversionError for a model that takes spaces away: which ones that are would depend on the place.
    """
    file = folder / "tokenizer.json"
    content = json.loads(file.read_bytes())
    steps = content["normalizer"]["normalizers"]
    if [step["type"] for step in steps] != ["Prepend", "Replace"]:
        raise ConversionError(
            "the SentencePiece model joins spaces, which does not go with legacy = false", fix=_ONLY_HF
        )
    content["normalizer"]["normalizers"] = steps[1:]
    # A normalizer does not know where in the text it is, and the first of these does. No space is left by then, so the
    # one that it puts in front is the only one, and the second makes a mark of it.
    front = [("first", " "), ("never", MARK)]
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            *(
                {"type": "Metaspace", "replacement": sign, "prepend_scheme": where, "split": False}
                for where, sign in front
            ),
            *((content["pre_tokenizer"] or {}).get("pretokenizers") or ()),
        ],
    }
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(
    model_file: Path,
    folder: Path,
    *,
    add_bos: bool = True,
    max_length: int | None = None,
    keep: Mapping[str, Any] | None = None,
) -> SpecialIds:
    """Write tokenizer.json, tokenizer_config.json and tokenizer.model into `folder`; return the ids with a meaning.

    `add_bos`: whether BOS comes before every text, as LLaMA's programs have it. `max_length` is the model's context in
    tokens. `keep` is what else tokenizer_config.json is to say, such as a chat template. The files are then read by
    AutoTokenizer and compared with `sentencepiece`. Raises ConversionError for a model that cannot be written so that
    all ids are the same, and MissingExtra without the packages.
    """
    processor = _load(model_file)
    special = special_ids(model_file)
    pieces = _pieces(processor)
    tokenizer = build_tokenizer(pieces, _rules(processor), bos=_bos(model_file) if add_bos else None)
    names = {"bos_token": special.bos, "eos_token": special.eos, "unk_token": special.unk, "pad_token": special.pad}
    config = {
        **{name: pieces[index].text for name, index in names.items() if index is not None},
        "clean_up_tokenization_spaces": False,
        **({"model_max_length": max_length} if max_length else {}),
        **(keep or {}),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": add_bos,
        "add_eos_token": False,
    }
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    if not (folder / MODEL_FILE).exists() or not (folder / MODEL_FILE).samefile(model_file):
        shutil.copyfile(model_file, folder / MODEL_FILE)
    check(model_file, folder, add_bos=add_bos)
    return special


def check(model_file: Path, folder: Path, *, add_bos: bool = True) -> None:
    """Check that AutoTokenizer reads `folder` as `sentencepiece` reads `model_file`. Raises ConversionError.

    Beside the probe texts, every piece is read, alone and among others, and texts drawn at random from them. Of a
    unigram model, other pieces may come where nothing but rounding is between them: see `spm_rounding`.
    """
    processor = _load(model_file)
    pieces = _pieces(processor)
    specials = [piece.text for piece in pieces if piece.kind in (Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED)]
    read, rules = reader(model_file, add_bos=add_bos), _rules(processor)
    texts = [*_texts_of_rules(rules.charsmap), *_own_texts(pieces)]
    check_same_ids(read, folder, specials=specials[:_PIECES_AT_ONCE], texts=texts, excuse=_rounding(pieces, rules))
    _check_spelling(processor, folder)


def rounding(model_file: Path) -> Excuse | None:
    """Return what tells ids that differ by rounding alone; None for a model that adds nothing, as BPE.

    Raises ConversionError.
    """
    processor = _load(model_file)
    return _rounding(_pieces(processor), _rules(processor))


def _rounding(pieces: Sequence[Piece], rules: Rules) -> Excuse | None:
    if rules.is_bpe:
        return None
    found = (Kind.NORMAL, Kind.USER_DEFINED)
    scored = zip(pieces, unigram_scores(pieces), strict=True)
    return Rounding({piece.id: (piece.text, score) for piece, score in scored if piece.kind in found}).explains


def _check_spelling(processor: Any, folder: Path) -> None:
    """Check that ids become the same text. Unknown ones are left out: each program has its own sign for them."""
    loaded = load_tokenizer(folder)
    for text in PROBE_TEXTS:
        ids = [index for index in processor.encode(text) if index != processor.unk_id()]
        have, want = loaded.decode(ids, skip_special_tokens=True), processor.decode(ids)
        if have != want:
            raise ConversionError(f"the saved tokenizer spells {ids} {have!r}, the source's {want!r}", fix=_ONLY_HF)


def _own_texts(pieces: list[Piece]) -> Iterator[str]:
    """Texts made of what the model knows: every piece, in order and at random, whole and cut in two."""
    texts = [piece.text.replace(MARK, " ") for piece in pieces]
    yield from texts
    if own := next((piece.text for piece in pieces if piece.kind == Kind.USER_DEFINED), ""):
        # Between two that stand alone, a piece is looked up whole.
        yield from (f"{own}{text}{own}" for text in texts)
    for start in range(0, len(texts), _PIECES_AT_ONCE):
        yield "".join(texts[start : start + _PIECES_AT_ONCE])
    for letter in sorted({text[0] for text in texts if len(text) > 1 and len(set(text)) == 1}):
        yield from (f"a{letter * length}b{letter * (length // 2)}" for length in range(_LONGEST_RUN))
    draw = random.Random(0)
    for _ in range(_RANDOM_TEXTS):
        drawn = draw.choices(texts, k=_PIECES_AT_ONCE)
        yield "".join(text[draw.randint(0, len(text)) :] if draw.random() < 0.3 else text for text in drawn)
    letters = sorted({letter for text in texts for letter in text})
    for _ in range(_RANDOM_TEXTS):
        yield "".join(letter * draw.choice((1, 1, 1, 2, 5)) for letter in draw.choices(letters, k=_PIECES_AT_ONCE))


def _texts_of_rules(charsmap: bytes) -> Iterator[str]:
    """Texts that a compiled normalization changes: every so many of its rules, next to one another and apart."""
    changed = sorted(read_rules(charsmap))[::_RULES_PASSED] if charsmap else []
    for start in range(0, len(changed), _PIECES_AT_ONCE):
        yield from (joint.join(changed[start : start + _PIECES_AT_ONCE]) for joint in ("", "x"))


def _bos(model_file: Path) -> int:
    bos = special_ids(model_file).bos
    if bos is None:
        raise ConversionError(
            f"{model_file.name} has no BOS, and every prompt is to begin with one",
            fix="use the tokenizer of this model",
        )
    return bos


def _load(model_file: Path) -> Any:
    if not all(importlib.util.find_spec(package) for package in _PACKAGES):
        raise MissingExtra("engine,import", "Reading a SentencePiece model")
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(model_file))
    except Exception as error:  # the library raises RuntimeError and, for some damage, others
        raise ConversionError(
            f"{model_file} is no SentencePiece model: {error}",
            fix="fetch the file again, or give another by `tokenizer`",
        ) from None


def _without_prefix(processor: Any) -> Any:
    """Return the same model with no space in front of a text."""
    from sentencepiece import SentencePieceProcessor

    proto = _proto(processor)
    proto.normalizer_spec.add_dummy_prefix = False
    return SentencePieceProcessor(model_proto=proto.SerializeToString())


def _pieces(processor: Any) -> list[Piece]:
    proto = _proto(processor)
    return [Piece(index, piece.piece, Kind(piece.type), piece.score) for index, piece in enumerate(proto.pieces)]


def _rules(processor: Any) -> Rules:
    proto = _proto(processor)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    faults = {
        f"model_type {trainer.model_type}": trainer.model_type not in (trainer.BPE, trainer.UNIGRAM),
        "treat_whitespace_as_suffix": trainer.treat_whitespace_as_suffix,
        "escape_whitespaces = false": not normalizer.escape_whitespaces,
        "a denormalizer": bool(proto.denormalizer_spec.precompiled_charsmap),
    }
    if found := [name for name, is_so in faults.items() if is_so]:
        raise ConversionError(
            f"the SentencePiece model has {' and '.join(found)}, and no tokenizer.json gives all the same ids",
            fix=_ONLY_HF,
        )
    return Rules(
        is_bpe=trainer.model_type == trainer.BPE,
        byte_fallback=trainer.byte_fallback,
        add_prefix=normalizer.add_dummy_prefix,
        remove_extra_spaces=normalizer.remove_extra_whitespaces,
        charsmap=normalizer.precompiled_charsmap,
    )


def _proto(processor: Any) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2
    return messages.ModelProto.FromString(processor.serialized_model_proto())
