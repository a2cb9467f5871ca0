"""Proof that the tokenizer in a folder reads texts as the program does that the model was trained with.

Transformers rebuilds some tokenizers from their parts when it loads them, and leaves out what it has no part for. So
no look at the files tells how a tokenizer reads; only a comparison does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cogsmith.errors import ConversionError
from cogsmith.sources.silent import quiet_libraries

ReadText = Callable[[str], list[int]]
"""A text to token ids, with the ids that the program puts around a prompt."""
Excuse = Callable[[str, Sequence[int], Sequence[int]], bool]
"""Whether a text's ids, ours and the source's, differ for a reason that no tokenizer.json can do anything about."""

PROBE_TEXTS = (
    "",
    " ",
    "   ",
    "a",
    " a",
    "a ",
    "  a  b   c    ",
    "The quick brown fox can't jump over 13 lazy dogs; they've 1,234.56 reasons (or 2026)!",
    "I'M HERE, YOU'LL SEE; we'd've. Don\u2019t \u201cquote\u201d \u2014 me\u2026 e.g. Mr. O'Neil-Smith's x-ray",
    "snake_case camelCase SCREAMING kebab-case a.b.c user@example.com https://example.com/a?b=c&d=%20#e C:\\dir\\f.txt",
    # Digits: alone, in runs, of other scripts.
    "0 1 12 123 1234 12345 1234567890 3.14159 1e-10 0xFF 007 12:34:56 2026-02-28 \u0663\u0664\u0665 \u0967\u0968\u0969",
    # White space.
    "  two  spaces,\ttabs\t\tand\n\nnew\r\nlines\rand \n ",
    "\n",
    "\n\n\n x\n",
    "\t",
    "\r\n\r\n",
    "x" + " " * 3 + "x" + " " * 17 + "x" + " " * 130 + "x",
    " " * 300,
    "\t" * 33 + "\n" * 33,
    "\u00a0no-break\u00a0 \u2002en \u2003em \u2009thin \u3000wide \u2028line\u2029par. \u0085next \u000b \u000c \u1680",
    # The character that SentencePiece writes for a space, and what byte-level BPE writes for some bytes.
    "\u2581",
    "\u2581\u2581a\u2581 \u2581b \u2581",
    "\u0120a\u010ab\u0109c",
    # Code.
    "def f(x):\n    return {'a': [x ** 2, -1.5e-10], \"b\": None}  # ok\n",
    "#include <stdio.h>\nint main(void)\n{\n\tfor (int i = 0; i < 10; ++i) printf(\"%d\\n\", i);\n}\n",
    "<div class=\"a\">&nbsp;&lt;</div> $x^2 + \\frac{1}{2}$ `code` **bold** ~~~ ||| === --- ///",
    # Scripts.
    "Größe, naïve café, æøå Łódź Ğıİş Ǆ Tiếng Việt",
    "Ελληνικά Σσς, Русский язык, Україна, Հայերեն, ქართული",
    "עִבְרִית, العَرَبِيّة ٣٤ ﻻ, فارسی, اردو",
    "हिन्दी क्ष, বাংলা, தமிழ், తెలుగు, ไทย, ລາວ, ខ្មែរ, မြန်မာ, བོད",
    "中文分词\uff0c繁體字。日本語テキスト、ひらがな。한국어 텍스트.",
    "አማርኛ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ᠠᠮᠭᠤᠯ \U00010330\U00010331 \U0001d504\U0001d505 \U00020000\U0002a6d6",
    # Composed, decomposed, in neither order; compatibility forms; combining marks on nothing.
    "\u00e9 e\u0301 \u1ec7 e\u0323\u0302 e\u0302\u0323 \u00ea\u0323 \u1eb9\u0302 "
    "\u00c5 A\u030a \u212b \u1e9b\u0323 s\u0323\u0307",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165 하\u11ab か\u3099 ハ\u309a \uff76\uff9e \uff8a\uff9f "
    "\u0958 क\u093c",
    "ﬁnd ﬃ ½ ² Ⅷ ① ㎡ \uff21\uff22\uff23\uff11\uff12\uff01 \u210c \u2126 \u017f Ĳ \u1d2c ﷺ",
    "\u0301 \u0301\u0301 a\u0300\u0301\u0302\u0303\u0304\u0305 \u0948\u0948 \u20dd \u093c",
    # Emoji: families, flags, skin tones, keycaps, text and emoji forms; joiners and marks of direction alone.
    "emoji \U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1eb\U0001f1f7 \u2728 "
    "\U0001f44d\U0001f3fd 1\ufe0f\u20e3 \u2764\ufe0f \u2764\ufe0e "
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u200b \u200c \u200d \u200e \u200f \u202a \u202e \u2060 \ufeff \u00ad \u034f \u061c \u2066",
    # What nobody has a piece for: private use, unassigned, noncharacters, the replacement character, the last one.
    "\ue000 \U000f0000 \u0378 \ufffd \ufffe \uffff \ufdd0 \U0010ffff \U0001fbff",
    # Control characters; NUL cuts a text short in a program that takes it for the end.
    "a\u0001b\u0002\u0007\u0008\u001b[0m\u001f\u007f\u0080\u009f",
    "a\u0000b \u0000",
    # How pieces for single bytes are written.
    "<0x0A> <0x41> <0xFF> \\n \\u0041 &#10;",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa========================--------------------ababababababab",
    # Other models' special tokens, and perhaps this one's.
    "<s>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\nhi [/INST] hello </s><s>[INST] again [/INST]",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|> <unk> <pad> <mask> [CLS] [SEP] [MASK] <bos> <eos> <start_of_turn>",
)  # fmt: skip
"""Where tokenizers are known to differ: scripts, forms of one character, spaces, digits, code, specials, bytes."""

_SHOWN_IDS = 40
_FIX = "give the model a tokenizer.json by `tokenizer`, or use weights that come with one"


def probe_texts(specials: Sequence[str] = ()) -> Iterator[str]:
    """Yield PROBE_TEXTS, and each of the tokenizer's own `specials` alone, between letters, among spaces, doubled."""
    yield from PROBE_TEXTS
    for special in specials:
        yield from (special, f"x{special}x", f" {special} y {special} ", f"{special}{special}", f"{special}\n{special}")
    if specials:
        yield "x".join(specials)
        yield "".join(specials)


def check_same_ids(
    truth: ReadText,
    folder: Path,
    *,
    specials: Sequence[str] = (),
    bos: int | None = None,
    texts: Sequence[str] = (),
    excuse: Excuse | None = None,
) -> None:
    """Check that AutoTokenizer, as it reads `folder`, gives the ids of `truth` for every probe text.

    `truth` is how the source's program encodes a prompt; `bos` is an id that it puts in front besides, where `truth`
    does not. `specials` are the tokenizer's own special tokens as they are spelled; `texts` are read too. Raises
    ConversionError at the first text that is read differently and that `excuse` does not excuse.
    """
    loaded = load_tokenizer(folder)
    front = [] if bos is None else [bos]
    every = [*probe_texts(specials), *texts]
    for text, ids in zip(every, read_all(loaded, every), strict=True):
        want = [*front, *truth(text)]
        if ids != want and not (excuse and excuse(text, ids, want)):
            expect_ids(text, ids, want)


def expect_ids(text: str, have: list[int], want: list[int]) -> None:
    """Raise ConversionError, with the text and where they part, unless the saved tokenizer's ids are the source's."""
    if have == want:
        return
    pairs = enumerate(zip(have, want, strict=False))
    at = next((index for index, (ours, theirs) in pairs if ours != theirs), min(len(have), len(want)))
    raise ConversionError(
        f"the saved tokenizer reads {text!r} as {_shown(have, at)}, the source's as {_shown(want, at)}",
        fix=_FIX,
    )


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's tokenizer as the engine loads it. Raises ConversionError where transformers cannot."""
    from transformers import AutoTokenizer

    with quiet_libraries():
        try:
            return AutoTokenizer.from_pretrained(str(folder))
        except Exception as error:  # tokenizers raises bare Exceptions, and transformers whatever comes
            raise ConversionError(
                f"transformers cannot load the tokenizer in {folder}: {error}",
                fix=_FIX,
            ) from error


def read_all(tokenizer: Any, texts: Sequence[str], **options: Any) -> list[list[int]]:
    """Return the ids of each text. `options` are those of a call of the tokenizer. Raises ConversionError."""
    try:
        return [list(ids) for ids in tokenizer(list(texts), **options)["input_ids"]] if texts else []
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # `tokenizers` raises bare Exceptions, and panics, which are not even that
        raise ConversionError(f"the saved tokenizer cannot read a text: {error}", fix=_FIX) from error


def _shown(ids: list[int], at: int) -> str:
    """The ids around the place `at`, where two lists part; all of a short list."""
    start = max(0, at - _SHOWN_IDS // 2) if len(ids) > _SHOWN_IDS else 0
    part = ids[start : start + _SHOWN_IDS]
    before, after = "… " if start else "", " …" if start + len(part) < len(ids) else ""
    return f"[{before}{', '.join(map(str, part))}{after}]"
