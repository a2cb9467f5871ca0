"""What becomes of a rendered prompt, and of the texts that end its answer, where a tokenizer reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Stops(NamedTuple):
    """What ends an answer: the `texts`, and the `ids` of tokens that have none when they are decoded."""

    texts: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()


def wants_special(text: str, special: Mapping[str, Any], *, own: bool) -> bool:
    """Return whether a tokenizer is still to add its special tokens to a template's `text`.

    A model's `own` template has written those that it needs. A named one is text, unless it begins with the first
    token itself, as one of Hugging Face's kind may. `special` are the special tokens by name.
    """
    begin = special.get("bos_token")
    return not (own or (isinstance(begin, str) and begin and text.startswith(begin)))


def split_stops(stop: Sequence[str], added: Mapping[int, Any]) -> Stops:
    """Return texts that end an answer, those that are one special token each by its id: it has no text then.

    `added` are the tokenizer's added tokens by id, as `tokenizers` and transformers give them.
    """
    special = {token.content: id_ for id_, token in added.items() if token.special}
    return Stops(
        tuple(text for text in stop if text not in special),
        tuple(special[text] for text in dict.fromkeys(stop) if text in special),
    )
