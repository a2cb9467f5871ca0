"""Tokens as the page gets them: each with its text, its log-probability and its alternatives."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cogsmith.client.results import Token
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.detokenize import StopStrings, TextDecoder

_ANCHOR = "a"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Labels:
    """Each token's text by itself, for people: as it reads behind other text, and a special token by its name."""

    def __init__(self, tokenizer: ClientTokenizer) -> None:
        self._tokenizer = tokenizer
        # Some tokenizers drop the space before a text's first word, so no token is decoded as the first.
        self._anchor = tokenizer.encode(_ANCHOR, special=False)[-1:]
        self._before = tokenizer.decode(self._anchor)
        self._known: dict[int, str] = {}

    def __getitem__(self, id_: int) -> str:
        if id_ not in self._known:
            self._known[id_] = self._text(id_)
        return self._known[id_]

    def _text(self, id_: int) -> str:
        text = self._tokenizer.decode([*self._anchor, id_]).removeprefix(self._before)
        # A part of a character, or a special token, is known by what the vocabulary calls it.
        return text if text and _REPLACEMENT not in text else self._tokenizer.name_of(id_)


class Shown:
    """Turns a continuation's tokens into the page's, and holds back those that may be the beginning of a stop text."""

    def __init__(
        self,
        tokenizer: ClientTokenizer,
        labels: Labels,
        prompt: Sequence[int] = (),
        stops: Sequence[str] = (),
        eos_ids: Collection[int] = (),
    ) -> None:
        self._labels = labels
        self._eos_ids = eos_ids
        self._decoder = TextDecoder(tokenizer.decode, prompt)
        self._stops = StopStrings(stops)
        self._waiting: list[tuple[dict[str, Any], str]] = []
        self._free = 0
        """Characters that may be shown, of the texts of those that wait."""

    @property
    def stop(self) -> str | None:
        """The stop text that ended the continuation; None while none has."""
        return self._stops.found

    def push(self, token: Token) -> list[dict[str, Any]]:
        """Add a token; return those that may be shown now."""
        # An end token has no text for a reader, even where the tokenizer does not call it special.
        is_end = token.finish_reason == "stop" and token.token in self._eos_ids
        text = "" if is_end else self._decoder.push(token.token)
        self._waiting.append((self._described(token), text))
        self._free += len(self._stops.push(text))
        return self._flush() if self.stop is not None else self._released()

    def flush(self) -> list[dict[str, Any]]:
        """Return what was held back: the continuation has ended, by a stop text or otherwise."""
        if self.stop is None and self._waiting:
            described, text = self._waiting[-1]
            self._waiting[-1] = described, text + self._decoder.flush()
            self._free = sum(len(text) for _, text in self._waiting)
        return self._flush()

    def _flush(self) -> list[dict[str, Any]]:
        """Give out all that waits. What of it belongs to a stop text has no text."""
        shown = []
        for described, text in self._waiting:
            visible, self._free = text[: self._free], max(0, self._free - len(text))
            shown.append(described | {"text": visible})
        self._waiting, self._free = [], 0
        return shown

    def _released(self) -> list[dict[str, Any]]:
        """Give out the first tokens whose texts are free."""
        shown = []
        while self._waiting and len(self._waiting[0][1]) <= self._free:
            described, text = self._waiting.pop(0)
            self._free -= len(text)
            shown.append(described | {"text": text})
        return shown

    def _described(self, token: Token) -> dict[str, Any]:
        return described(token, self._labels)


def described(token: Token, labels: Labels) -> dict[str, Any]:
    """A token by itself: its id, name and log-probability; its alternatives, the likeliest first."""
    return {
        "id": token.token,
        "label": labels[token.token],
        "logprob": token.logprob,
        "top": _ranked(token.top_logprobs or {}, labels),
    }


def _ranked(logprobs: Mapping[int, float], labels: Labels) -> list[dict[str, Any]]:
    ranked = sorted(logprobs.items(), key=lambda item: -item[1])
    return [{"id": id_, "label": labels[id_], "logprob": logprob} for id_, logprob in ranked]


def spelled(tokens: Sequence[Token], tokenizer: ClientTokenizer, labels: Labels) -> list[dict[str, Any]]:
    """A whole text's tokens."""
    shown = Shown(tokenizer, labels)
    return [one for token in tokens for one in shown.push(token)] + shown.flush()
