"""From a stream of token ids to text that can be shown at once: whole characters, and nothing of a stop string.

No I/O and no torch: a container uses this to end a stream, a caller to print one. It travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[list[int]], str]
"""A tokenizer's `decode`: ids to text, special tokens left out."""


class TextDecoder:
    """Turns a stream of ids into a stream of text, holding back half a character until the rest has come.

    Only a short tail is decoded again for each token: what was already given out, as context for the tokenizer's
    spacing, and what is still held back.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """Add a token; return the text that is now complete, possibly none."""
        self._pending.append(token)
        text = self._pending_text()
        # A byte-level token may end inside a character; its decoded form then ends with the replacement character.
        return "" if text.endswith(_REPLACEMENT) else self._give(text)

    def flush(self) -> str:
        """Return what was held back, whole or not."""
        return self._give(self._pending_text())

    def _pending_text(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _give(self, text: str) -> str:
        self._context, self._pending = self._pending or self._context, []
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
        text = self._held + text
        start, self.found = self._first(text) if armed else (len(text), None)
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

    def _first(self, text: str) -> tuple[int, str | None]:
        """Where the earliest stop string begins, and which; of several that begin there, the longest."""
        found = [(text.index(stop), -len(stop), stop) for stop in self._stops if stop in text]
        if not found:
            return len(text), None
        start, _, stop = min(found)
        return start, stop

    def _begun(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins, short of being one."""
        longest = max(map(len, self._stops), default=0)
        for length in range(min(longest - 1, len(text)), 0, -1):
            if any(len(stop) > length and stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
