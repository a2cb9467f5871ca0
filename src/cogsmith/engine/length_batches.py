"""Which waiting texts share a forward pass: those of about one length, so that little is padding. Plain Python."""

from __future__ import annotations

from collections.abc import Sequence

_SLACK_FLOOR = 8
"""Tokens of padding that any text may get: short texts differ by more than a share of their length."""
_SLACK_SHARE = 8
"""Beyond that, a batch's shortest text may be shorter than its longest by this part of it."""


def next_batch(lengths: Sequence[int], *, max_rows: int, max_tokens: int, equal: bool = False) -> list[int]:
    """Return the places of the texts to run next, of texts that wait in the order of `lengths`.

    The first is always among them, however long it is. Then come the nearest to it in length, as long as there are no
    more than `max_rows`, and with padding no more than `max_tokens` tokens. With `equal`, all are of one length.
    """
    first = lengths[0]
    chosen, shortest, longest = [0], first, first
    for place in sorted(range(1, len(lengths)), key=lambda place: (abs(lengths[place] - first), place)):
        low, high = min(shortest, lengths[place]), max(longest, lengths[place])
        slack = 0 if equal else max(_SLACK_FLOOR, high // _SLACK_SHARE)
        if len(chosen) == max_rows:
            break
        if high - low <= slack and high * (len(chosen) + 1) <= max_tokens:
            chosen.append(place)
            shortest, longest = low, high
    return chosen
