"""Prompts, masks and options, the same for every engine and different in every repetition."""

from __future__ import annotations

import random
from pathlib import Path

from transformers import AutoTokenizer

_PEOPLE = ["Anna", "Bertil", "Chidi", "Dolores", "Emil", "Farah", "Goran", "Hanna", "Ines", "Jonas"]
_ACTS = ["carried", "found", "lost", "painted", "sold", "repaired", "borrowed", "described", "photographed", "forgot"]
_KINDS = ["red", "heavy", "broken", "quiet", "foreign", "narrow", "golden", "useless", "familiar", "wet"]
_THINGS = ["lamp", "boat", "letter", "clock", "bridge", "garden", "coat", "engine", "violin", "map"]
_PLACES = ["harbour", "station", "market", "library", "bakery", "museum", "school", "island", "tower", "field"]

_MASK_ENTRIES = 1000
_BIAS = 100.0
_LONGEST_OPTION = 8


class Prompts:
    """Draws from one seed. Where that is used once, no engine has seen the beginning of a prompt before."""

    def __init__(self, checkpoint: Path, seed: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        self._random = random.Random(seed)

    def prompt(self, length: int) -> list[int]:
        """Return the ids of `length` tokens of text, the model's first token before them where it has one."""
        bos = self._tokenizer.bos_token_id
        begin = [] if bos is None else [bos]
        return (begin + self.text(length))[:length]

    def text(self, length: int) -> list[int]:
        """Return the ids of `length` tokens of sentences."""
        ids: list[int] = []
        while len(ids) < length:
            ids += self._tokenizer.encode(self._sentence(), add_special_tokens=False)
        return ids[:length]

    def mask(self, *, allow: bool) -> dict[str, float]:
        """Return a bias as LMQL sends it: +100 for the allowed ids, or -100 for the excluded ones."""
        size = len(self._tokenizer)
        chosen = self._random.sample(range(size), min(_MASK_ENTRIES, size // 2))
        return dict.fromkeys(map(str, chosen), _BIAS if allow else -_BIAS)

    def options(self, count: int) -> list[list[int]]:
        """Return `count` continuations of 1 to 8 tokens."""
        return [self.text(1 + index % _LONGEST_OPTION) for index in range(count)]

    def _sentence(self) -> str:
        person, act, kind, thing, place = map(self._random.choice, (_PEOPLE, _ACTS, _KINDS, _THINGS, _PLACES))
        return f" {person} {act} the {kind} {thing} near the {place} on day {self._random.randrange(1000)}."
