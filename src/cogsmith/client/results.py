"""What a call gives: tokens, and what they amount to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cogsmith.lmtp import EndReason, Timing, Usage


@dataclass(frozen=True, slots=True)
class Token:
    """One token of branch `index`. `logprob` is natural; the mappings are there where they were asked for."""

    token: int
    logprob: float
    index: int = 0
    finish_reason: EndReason | None = None
    """Not None on the last token of a branch, unless the branch was ended between two tokens."""
    top_logprobs: Mapping[int, float] | None = None
    logprobs: Mapping[int, float] | None = None
    """Of `logprob_ids`."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation: its tokens, why it ended, and which entry of `stop` ended it, if one did."""

    tokens: tuple[Token, ...]
    finish_reason: EndReason | None
    stop: str | tuple[int, ...] | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens' ids."""
        return tuple(token.token for token in self.tokens)

    @property
    def logprob(self) -> float:
        """The log-probability of the whole continuation: the sum over its tokens."""
        return sum(token.logprob for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a GENERATE came to: its `n` branches, in order."""

    branches: tuple[Branch, ...]
    usage: Usage
    """Over all branches; the prompt counts in each."""
    timing: Timing | None
    """As the server measured it; None where it does not."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The first branch's ids."""
        return self.branches[0].ids

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The first branch's tokens."""
        return self.branches[0].tokens

    @property
    def finish_reason(self) -> EndReason | None:
        """Why the first branch ended."""
        return self.branches[0].finish_reason


@dataclass(frozen=True, slots=True)
class ScoredOption:
    """An option with the log-probability of each of its tokens, given the prompt and those before it."""

    tokens: tuple[Token, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The option's ids."""
        return tuple(token.token for token in self.tokens)

    @property
    def logprob(self) -> float:
        """The log-probability of the option: the sum over its tokens."""
        return sum(token.logprob for token in self.tokens)

    @property
    def mean_logprob(self) -> float:
        """The same per token, so that long options compare with short ones."""
        return self.logprob / len(self.tokens)
