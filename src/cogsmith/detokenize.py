"""From a stream of token ids to text that can be shown at once: whole characters, and nothing of a stop string.

And which vocabulary the ids are of. No I/O and no torch: a container uses this to end a stream, a caller to print
one. It travels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CONTEXT_IDS = 8

# A character has at most four bytes, so more tokens than these are not all waiting for the rest of one.
_MOST_PENDING = 16
_MOST_BEGUN = 3
"""Tokens that the beginning of a character can lie in: each has a byte of it at least."""

Decode = Callable[[list[int]], str]
"""A tokenizer's `decode`: ids to text, special tokens left out."""

Stop = str | tuple[int, ...]
"""A text, or a sequence of token ids."""


def fingerprint(vocabulary: Mapping[str, int]) -> str:
    """Hash all (token, id) pairs: equal for vocabularies whose ids mean the same, whatever they are called."""
    pairs = sorted(vocabulary.items(), key=lambda pair: (pair[1], pair[0]))
    return "sha256:" + hashlib.sha256(json.dumps(pairs, ensure_ascii=True).encode()).hexdigest()


class TextDecoder:
    """Turns a stream of ids into a stream of text, holding back half a character until the rest has come.

    Only a short tail is decoded again for each token: what was already given out, as context for the tokenizer's
    spacing, and what is still held back. `prompt` is what the ids follow: some tokenizers drop a text's first space.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._context = list(prompt[-_CONTEXT_IDS:])
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """Add a token; return the text that is now complete, possibly none."""
        self._pending.append(token)
        text = self._pending_text()
        # A byte-level token may end inside a character; its decoded form then ends with the replacement character.
        # So does text that is no whole character ever: without a limit, each token would cost more than the one before.
        if not text.endswith(_REPLACEMENT):
            return self._give(text)
        return "" if len(self._pending) < _MOST_PENDING else self._give_settled(text)

    def flush(self) -> str:
        """Return what was held back, whole or not."""
        return self._give(self._pending_text())

    def _pending_text(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _give_settled(self, text: str) -> str:
        """Give out what no further token can change, of a text that has long been no whole characters."""
        before = len(self._decode(self._context))
        for held in range(_MOST_BEGUN, _MOST_PENDING // 2):
            settled = self._decode(self._context + self._pending[:-held])[before:]
            # Otherwise a whole character lies across the border.
            if text.startswith(settled):
                pending, self._pending = self._pending[-held:], self._pending[:-held]
                self._give(settled)
                self._pending = pending
                return settled
        return self._give(text)

    def _give(self, text: str) -> str:
        # A token without text, such as a special one, is no context: what follows would look like a text's beginning.
        context = self._pending if text else [*self._context, *self._pending][-_CONTEXT_IDS:]
        self._context, self._pending = context, []
        return text


class StopStrings:
    """Finds the first of `stops` in text that comes in pieces, and keeps it, whole or begun, out of what is shown."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text; None while none has."""

    def push(self, text: str, *, armed: bool = True) -> str:
        """Add text; return what may be shown now: what can no longer be the beginning of a stop string.

        Stop strings that end within `text` count only where `armed`. After one was found, nothing is shown any more.
        """
        if self.found is not None:
            return ""
        num_held = len(self._held)
        text = self._held + text
        start, self.found = self._first(text, num_held) if armed else (len(text), None)
        if self.found is not None:
            self._held = ""
            return text[:start]
        shown = len(text) - self._begun(text)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """Return what was held back in vain: the text has ended otherwise."""
        held, self._held = self._held, ""
        return held

    def _first(self, text: str, num_held: int) -> tuple[int, str | None]:
        """Where the earliest stop string begins, and which; of several that begin there, the longest.

        One that ended within the first `num_held` characters came too early to count.
        """
        starts = [(text.find(stop, max(0, num_held - len(stop) + 1)), -len(stop), stop) for stop in self._stops]
        start, _, stop = min((found for found in starts if found[0] >= 0), default=(len(text), 0, None))
        return start, stop

    def _begun(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins, short of being one."""
        longest = max(map(len, self._stops), default=0)
        for length in range(min(longest - 1, len(text)), 0, -1):
            if any(len(stop) > length and stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0


class Stopping:
    """Follows one continuation, from its first token. What ends within its first `min_tokens` tokens does not count.

    Texts are looked for in whole characters, and special tokens have no text. `decode` may be None without texts;
    `prompt` is what the continuation follows.
    """

    def __init__(
        self, stops: Sequence[Stop], min_tokens: int, decode: Decode | None, prompt: Sequence[int] = ()
    ) -> None:
        self._sequences = [stop for stop in stops if not isinstance(stop, str)]
        self._texts = StopStrings([stop for stop in stops if isinstance(stop, str)])
        self._decoder = None if decode is None else TextDecoder(decode, prompt)
        self._min_tokens = min_tokens
        self._ids: list[int] = []

    def push(self, token: int) -> Stop | None:
        """Add a token; return the stop that it completes: the first such sequence, else text, None for none."""
        self._ids.append(token)
        armed = len(self._ids) > self._min_tokens
        if self._decoder is not None:
            self._texts.push(self._decoder.push(token), armed=armed)
        ending = (stop for stop in self._sequences if stop[-1] == token)
        completed = (stop for stop in ending if tuple(self._ids[-len(stop) :]) == stop)
        return next(completed, self._texts.found) if armed else None
