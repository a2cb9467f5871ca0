"""Which ids of a unigram model differ for no reason but rounding.

A unigram model takes the pieces whose scores add up to the most. SentencePiece adds in single precision, from the
beginning of the text on (`EncodeOptimized` of unigram_model.cc:
https://github.com/google/sentencepiece/blob/master/src/unigram_model.cc); `tokenizers` adds in double, where such sums
are exact. Where two ways through a text come to the same, as `.` `..` and `..` `.` do, or nearly, the first rounds
and the second does not, so that each may go another way. Nothing in tokenizer.json could say which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

UNIT_ROUNDOFF = 2.0**-24
"""The largest relative error of one sum in single precision (IEEE 754)."""
UNKNOWN_PENALTY = 10.0
"""How far below the worst piece a letter is scored that has none (`kUnkPenalty`)."""


class Rounding:
    """Tells whether two readings of a text differ by rounding alone. `pieces` are text and score by id.

    They are those that a path through a text consists of: neither unknown letters, nor bytes, nor control pieces.
    """

    def __init__(self, pieces: Mapping[int, tuple[str, float]]) -> None:
        self._pieces = pieces
        self._letters = {text for text, _ in pieces.values() if len(text) == 1} | {" ", "\u2581"}
        self._unknown = UNKNOWN_PENALTY - min((score for _, score in pieces.values()), default=0.0)

    def explains(self, text: str, have: Sequence[int], want: Sequence[int]) -> bool:
        """Tell whether `have` and `want` are one text in pieces that score the same, as far as single precision goes.

        Where they part and until they meet again, both begin with the same sum. So they may differ by the roundings
        of what is added there, each of them at most UNIT_ROUNDOFF of the sum.
        """
        if self._letters_of(have) != self._letters_of(want):
            return False
        ours, theirs = self._by_end(have), self._by_end(want)
        unknown = sum(letter not in self._letters for letter in text) * self._unknown
        sums = list(accumulate((abs(self._score(piece)) for piece in want), initial=unknown))
        largest = dict(zip((0, *theirs), sums, strict=True))
        return all(
            self._is_close(_between(ours, begin, end), _between(theirs, begin, end), largest[end])
            for begin, end in pairwise([0, *(end for end in ours if end in theirs)])
        )

    def _is_close(self, have: Sequence[int], want: Sequence[int], largest: float) -> bool:
        if have == want:
            return True
        if any(piece not in self._pieces for piece in (*have, *want)):
            return False
        difference = sum(map(self._score, have)) - sum(map(self._score, want))
        return abs(difference) <= (len(have) + len(want)) * UNIT_ROUNDOFF * largest

    def _letters_of(self, ids: Sequence[int]) -> list[str | int]:
        """Return what the pieces spell; what is no such piece is its id."""
        return [letter for piece in ids for letter in self._spelled(piece)]

    def _by_end(self, ids: Sequence[int]) -> dict[int, int]:
        """Return the pieces by where in the text they end."""
        return dict(zip(accumulate(len(self._spelled(piece)) for piece in ids), ids, strict=True))

    def _spelled(self, piece: int) -> Sequence[str | int]:
        return self._pieces[piece][0] if piece in self._pieces else (piece,)

    def _score(self, piece: int) -> float:
        return self._pieces[piece][1] if piece in self._pieces else 0.0


def _between(by_end: Mapping[int, int], begin: int, end: int) -> list[int]:
    return [piece for at, piece in by_end.items() if begin < at <= end]
