"""Whether the engines that are compared compute the same thing: their tokens and scores beside ours."""

from __future__ import annotations

from engines.tasks import Measured


def same_tokens(one: Measured, other: Measured) -> int:
    """Return how many tokens of the first stream are the same, up to the first that is not."""
    pairs = zip(one.made[0], other.made[0], strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(one.made[0]))


def score_difference(one: Measured, other: Measured) -> float:
    """Return the largest difference between the log-probabilities of two engines."""
    return max(
        abs(a - b)
        for ours, theirs in zip(one.logprobs, other.logprobs, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
