"""A SentencePiece model's pieces and rules as a pipeline of the `tokenizers` library.

    text -> added tokens cut out -> normalizer -> pre-tokenizer -> BPE or unigram -> BOS in front -> ids

How SentencePiece works is in its sources: https://github.com/google/sentencepiece/tree/master/src (normalizer.cc,
bpe_model.cc, unigram_model.cc). Where `tokenizers` goes another way, the text is cut or scored so that both meet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from cogsmith.errors import ConversionError
from cogsmith.sources.spm_normalization import normalization_steps

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MARK = "\u2581"
"""What stands for a space in a piece."""


_ALL = 2**31
"""More spaces than a text begins with."""


_FIX = "give the model the tokenizer.json that its makers publish, by `tokenizer`"
_SMALLEST = 2.0**-126
"""The smallest normal number in single precision, FLT_MIN."""


class Kind(IntEnum):
    """`SentencePiece.Type` of sentencepiece_model.proto."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary. `score` is a log-probability (unigram) or minus the rank of its merge (BPE)."""

    id: int
    text: str
    kind: Kind
    score: float


@dataclass(frozen=True, slots=True)
class Rules:
    """What the model's specifications say."""

    is_bpe: bool
    byte_fallback: bool
    add_prefix: bool
    remove_extra_spaces: bool
    charsmap: bytes = b""
    """A compiled normalization; empty for none."""


def build_tokenizer(pieces: Sequence[Piece], rules: Rules, *, bos: int | None) -> Tokenizer:
    """Return the tokenizer of a SentencePiece model, with the id `bos` before every text.

    Raises ConversionError for pieces that `tokenizers` has no way to find. Where it finds others than SentencePiece
    only a comparison tells, which is the caller's.
    """
    from tokenizers import AddedToken, Tokenizer, processors

    own = [piece.text for piece in pieces if piece.kind == Kind.USER_DEFINED]
    if unused := [piece.text for piece in pieces if piece.kind == Kind.UNUSED]:
        raise ConversionError(f"the SentencePiece model has unused pieces, such as {unused[0]!r}", fix=_FIX)
    tokenizer = Tokenizer(_bpe(pieces, rules, bool(own)) if rules.is_bpe else _unigram(pieces, rules))
    tokenizer.normalizer = _normalizer(rules)
    if cuts := _cuts(pieces, rules, own):
        tokenizer.pre_tokenizer = cuts
    tokenizer.decoder = _decoder(rules)
    tokenizer.add_special_tokens(
        [
            AddedToken(piece.text, special=True, normalized=False)
            for piece in pieces
            if piece.kind in (Kind.CONTROL, Kind.UNKNOWN)
        ]
    )
    if bos is not None:
        name = pieces[bos].text
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[name, "$A"], pair=[name, "$A", f"{name}:1", "$B:1"], special_tokens=[(name, bos)]
        )
    return tokenizer


def _bpe(pieces: Sequence[Piece], rules: Rules, take_whole: bool) -> Any:
    from tokenizers import models

    return models.BPE(
        {piece.text: piece.id for piece in pieces},
        _merges(pieces),
        unk_token=next(piece.text for piece in pieces if piece.kind == Kind.UNKNOWN),
        fuse_unk=True,
        byte_fallback=rules.byte_fallback,
        ignore_merges=take_whole,
    )


def _merges(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Return `merges_by_score`. Raises ConversionError for pieces of one score that are no runs of one character."""
    scores = {piece.text: piece.score for piece in pieces if piece.kind == Kind.NORMAL}
    found = merges_by_score(scores)
    of_score: dict[float, str] = {}
    for left, right in found:
        text = left + right
        _require_run(text, of_score.setdefault(scores[text], text))
    return found


def merges_by_score(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the merges that the scores of pieces imply, the best score first.

    SentencePiece joins the neighbours whose joint piece scores best, the leftmost of equals; BPE wants a list of pairs.
    LLaMA's runs of spaces all have one score: the run on the left grows as long as there is a piece for it, which is
    what the pair with the longest left part, the first of equals here, comes to.
    """
    pairs = [(text[:cut], text[cut:]) for text in scores for cut in range(1, len(text))]
    made = [(left, right) for left, right in pairs if left in scores and right in scores]
    return sorted(made, key=lambda pair: (-scores[pair[0] + pair[1]], -len(pair[0]), pair))


def _require_run(text: str, other: str) -> None:
    """Raise ConversionError unless two pieces of one score are the same, or both runs of one character each."""
    if text != other and max(len(set(text)), len(set(other))) > 1:
        raise ConversionError(f"the SentencePiece model has pieces of one score, {other!r} and {text!r}", fix=_FIX)


def _unigram(pieces: Sequence[Piece], rules: Rules) -> Any:
    from tokenizers import models

    unknown = next(piece.id for piece in pieces if piece.kind == Kind.UNKNOWN)
    scores = list(zip((piece.text for piece in pieces), unigram_scores(pieces), strict=True))
    return models.Unigram(scores, unknown, byte_fallback=rules.byte_fallback)


def unigram_scores(pieces: Sequence[Piece]) -> list[float]:
    """Return what each piece of a unigram model is worth on a path through a text."""
    normal = [piece.score for piece in pieces if piece.kind == Kind.NORMAL]
    return [_score(piece, min(normal), max(normal)) for piece in pieces]


def _score(piece: Piece, worst: float, best: float) -> float:
    if piece.kind == Kind.USER_DEFINED:
        # So that it always wins (unigram_model.cc, where the best score is at least the smallest positive number).
        return len(piece.text.encode()) * max(best, _SMALLEST) - 0.1
    # The unknown piece is scored 10 below the worst, so nothing may be worse.
    return piece.score if piece.kind == Kind.NORMAL else worst


def _normalizer(rules: Rules) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = normalization_steps(rules.charsmap) if rules.charsmap else []
    if rules.remove_extra_spaces:
        steps += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if rules.add_prefix:
        steps.append(normalizers.Prepend(MARK))
    steps.append(normalizers.Replace(" ", MARK))
    if rules.remove_extra_spaces:
        steps.append(normalizers.Replace(Regex(rf"{MARK}+\z"), ""))
    return normalizers.Sequence(steps)


def _cuts(pieces: Sequence[Piece], rules: Rules, own: Sequence[str]) -> Any:
    """Return where the text is cut before the model sees it; None for nowhere."""
    from tokenizers import Regex, pre_tokenizers

    cuts = []
    if own and rules.is_bpe:
        longest_first = sorted(own, key=len, reverse=True)
        cuts.append(Regex("|".join(map(re.escape, longest_first))))
    if rules.byte_fallback and (own or not rules.is_bpe):
        cuts.append(Regex(_cut_in_spelled_bytes(pieces)))
    steps = [pre_tokenizers.Split(cut, "isolated") for cut in cuts]
    return pre_tokenizers.Sequence(steps) if steps else None


def _cut_in_spelled_bytes(pieces: Sequence[Piece]) -> str:
    """Return a pattern that cuts `<0x41>` in a text in two, so that it is not taken for the byte's own piece.

    The cut is where no piece could cross it, and so changes nothing else. Raises ConversionError if there is no such.
    """
    digit = "[0-9A-F]"
    letters = ("<", "0", "x", digit, digit, ">")
    known = [piece.text for piece in pieces if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED)]
    for at in range(1, len(letters)):
        crossing = re.compile(letters[at - 1] + letters[at])
        if not any(map(crossing.search, known)):
            return f"(?<={''.join(letters[:at])})(?={''.join(letters[at:])})"
    raise ConversionError("the SentencePiece model has pieces that are spelled like its bytes", fix=_FIX)


def _decoder(rules: Rules) -> Any:
    from tokenizers import decoders

    fallback = [decoders.ByteFallback()] if rules.byte_fallback else []
    leading = _ALL if rules.remove_extra_spaces else int(rules.add_prefix)
    strip = [decoders.Strip(" ", leading, 0)] if leading else []
    return decoders.Sequence([decoders.Replace(MARK, " "), *fallback, decoders.Fuse(), *strip])
