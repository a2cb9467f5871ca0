"""A SentencePiece model's compiled normalization (`nmt_nfkc`, its default, `nfkc` …) as steps of `tokenizers`.

A compiled normalization is a list of rules, text to text; where several match, the longest is taken. The step that
`tokenizers` has for it, Precompiled, takes the shortest rule for a whole grapheme (what a reader sees as one
character) and drops what follows in it: `e` with two accents loses one. Here the text is first cut wherever a match
ends, so that a grapheme is what one rule matches; NFKC then composes each by itself, as the rules of several
characters do, and Precompiled has single characters left.

    keep what NFKC would change and no rule does -> rules that NFKC does not know -> cut -> NFKC -> Precompiled
    -> NFKC -> cuts and keepsakes out again

The rules lie in a double array, laid out as in https://github.com/s-yata/darts-clone, with a table of what they give:
https://github.com/google/sentencepiece/blob/master/src/normalizer.cc, DecodePrecompiledCharsMap.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cogsmith.errors import ConversionError

_CUT = "\ufff0"
_KEEPSAKES = "\ufff1\ufff2\ufff3\ufff4\ufff5\ufff6\ufff7\ufff8"
"""Characters that Unicode never gave a meaning to, that no text has, and that no accent belongs to."""
_JOINING = r"\p{M}\p{Cf}\p{Cn}\n\x{1f3fb}-\x{1f3ff}"
"""What is, or in a newer Unicode may be, of one grapheme with the character before it: a line feed after `\\r`, too."""
_LAST = 0x110000
_FIX = "give the model the tokenizer.json that its makers publish, by `tokenizer`"

RulesOfText = Mapping[str, str]
"""What a text becomes; every key has at least one character."""


def read_rules(charsmap: bytes) -> dict[str, str]:
    """Return the rules in a `precompiled_charsmap`. Raises ConversionError where it is damaged."""
    try:
        return _walk(charsmap)
    except (struct.error, IndexError, ValueError) as error:
        raise ConversionError(f"the SentencePiece model's normalization is damaged: {error}", fix=_FIX) from error


def normalization_steps(charsmap: bytes) -> list[Any]:
    """Return the normalizers of `tokenizers` that do together what a `precompiled_charsmap` says.

    Raises ConversionError for one that is damaged or changes too little of what NFKC changes. Whether they do so is for
    a comparison to tell: rules of one's own may be anything.
    """
    from tokenizers import Regex, normalizers

    rules = read_rules(charsmap)
    kept = list(zip(_unruled(rules), _KEEPSAKES, strict=False))
    core = [
        normalizers.Replace(Regex(_cut_pattern(rules)), _CUT),
        normalizers.NFKC(),
        normalizers.Precompiled(charsmap),
        normalizers.NFKC(),
        normalizers.Replace(_CUT, ""),
    ]
    return [
        *(normalizers.Replace(own, keepsake) for own, keepsake in kept),
        *(normalizers.Replace(Regex(found), made) for found, made in _unknown(rules, normalizers.Sequence(core))),
        *core,
        *(normalizers.Replace(keepsake, own) for own, keepsake in kept),
    ]


def _walk(charsmap: bytes) -> dict[str, str]:
    (size,) = struct.unpack_from("<I", charsmap)
    units = struct.unpack_from(f"<{size // 4}I", charsmap, 4)
    texts = charsmap[4 + size :]
    bases = [at ^ (unit >> 10 << ((unit & 0x200) >> 6)) for at, unit in enumerate(units)]
    children: defaultdict[int, list[int]] = defaultdict(list)
    for at, unit in enumerate(units):
        if 0 < unit & 0x800000FF < 256:
            children[at ^ unit & 0xFF].append(at)
    rules: dict[str, str] = {}
    pending = [(0, b"")]
    while pending:
        at, before = pending.pop()
        if units[at] & 0x100:
            start = units[bases[at]] & 0x7FFFFFFF
            rules[before.decode()] = texts[start : texts.index(b"\0", start)].decode()
        if len(before) > 64:
            raise ValueError("a rule has no end")
        pending += [(child, before + bytes([units[child] & 0xFF])) for child in children.get(bases[at], ())]
    rules.pop("", None)
    return rules


def _unruled(rules: RulesOfText) -> list[str]:
    """Return the characters that NFKC changes and that no rule does. Raises ConversionError if they are many."""
    characters = (chr(code) for code in range(_LAST))
    unruled = [one for one in characters if one not in rules and not unicodedata.is_normalized("NFKC", one)]
    if len(unruled) > len(_KEEPSAKES):
        raise ConversionError(
            f"the SentencePiece model has a normalization of its own, which leaves {unruled[0]!r} as it is",
            fix=_FIX,
        )
    return unruled


def _cut_pattern(rules: RulesOfText) -> str:
    """Return a pattern of the places before a character that could belong to the one before, and by no rule does.

    Rules of several characters are a base and what is added to it, and without the last they are rules too. So what is
    added belongs if it stands behind such a base and what of the rule comes before.
    """
    bases: defaultdict[str, set[str]] = defaultdict(set)
    for text in rules:
        if len(text) > 1:
            bases[text[1:]].add(text[0])
    added = {letter for tail in bases for letter in tail}
    # The last of the tails that have all else in common, and then the first of those, become one class of characters.
    lasts: defaultdict[tuple[frozenset[str], str], set[str]] = defaultdict(set)
    for tail, before in bases.items():
        lasts[frozenset(before), tail[:-1]].add(tail[-1])
    middles: defaultdict[tuple[frozenset[str], frozenset[str], str, int], set[str]] = defaultdict(set)
    for (every_base, middle), last in lasts.items():
        middles[every_base, frozenset(last), middle[1:], len(middle)].update(middle[:1])
    belongs = "|".join(
        f"(?<={_class(every_base)}{_class(first) if first else ''}{''.join(map(_class, rest))}){_class(every_last)}"
        for (every_base, every_last, rest, _), first in middles.items()
    )
    joining = f"[{_JOINING}{_class(added | _made_of_joining(rules, added))}]"
    return rf"(?!\A)(?={joining})" + (f"(?!{belongs})" if belongs else "")


def _made_of_joining(rules: RulesOfText, added: set[str]) -> set[str]:
    """Return the characters that become something which belongs to the character before."""
    return {
        text
        for text, made in rules.items()
        if len(text) == 1 and made and (made[0] in added or unicodedata.category(made[0]).startswith("M"))
    }


def _unknown(rules: RulesOfText, core: Any) -> Iterator[tuple[str, str]]:
    """Yield patterns, and what they become, for the rules that `core` gets wrong: of a newer Unicode than its NFKC.

    Where a rule is that of a plainer base, the base is changed alone: `Ꟃ` with an accent is `C` with one.
    """
    from tokenizers import normalizers

    composed = normalizers.NFKC()
    wrong = [
        text
        for text, made in rules.items()
        if len(text) > 1 and composed.normalize_str(text) != made and core.normalize_str(text) != made
    ]
    plainer: defaultdict[str, set[str]] = defaultdict(set)
    others: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    for text in wrong:
        base = rules.get(text[0])
        if base and rules.get(base + text[1:]) == rules[text]:
            plainer[base].add(text[0])
        else:
            others[-len(text), rules[text]].add(text)
    for (_, made), texts in sorted(others.items()):
        yield "|".join(map(re.escape, sorted(texts))), made
    for base, texts in sorted(plainer.items()):
        yield _class(texts), base


def _class(characters: Iterable[str]) -> str:
    """Return a class of characters as a pattern, neighbours as ranges."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    shown = (rf"\x{{{first:x}}}" + (rf"-\x{{{last:x}}}" if last > first else "") for first, last in ranges)
    return f"[{''.join(shown)}]"
