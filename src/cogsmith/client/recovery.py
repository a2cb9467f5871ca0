"""How a call goes on after its prediction was cut: from the prompt and the tokens that had come, in a new one.

That gives the tokens that an undisturbed run would have given only where the model decides alone: a greedy
continuation without penalties that look at the continuation only, and scoring. A branch of which nothing has come
may start again whatever its options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from cogsmith.lmtp import ExtendedGenerate, ExtendedScore, Generate, Score
from cogsmith.lmtp.continuation import can_continue, continued, continued_score

Call = Generate | Score | ExtendedGenerate | ExtendedScore
"""An operation that gives tokens."""


@dataclass(eq=False, slots=True)
class Leg:
    """An operation that gives some branches of a call, `indices` by the call's count, and what has come of them."""

    operation: Call
    indices: tuple[int, ...]
    attempt: int = 0
    """How many predictions of these branches were cut before."""
    received: list[list[int]] = field(init=False)
    """Ids that have come, by the operation's own count of branches."""
    finished: set[int] = field(default_factory=set)
    """Branches whose last token has come, by the same."""

    def __post_init__(self) -> None:
        self.received = [[] for _ in self.indices]

    @property
    def is_extended(self) -> bool:
        """Whether the operation is one of LMTP 1.1, where an END ends a branch."""
        return isinstance(self.operation, ExtendedGenerate | ExtendedScore)


def rest(leg: Leg) -> list[Leg] | None:
    """Return what is left to do after `leg` was cut; None where a branch cannot go on as it would have."""
    legs = []
    for branch, index in enumerate(leg.indices):
        if branch in leg.finished:
            continue
        operation = _rest_of(leg.operation, branch, leg.received[branch])
        if operation is None:
            return None
        legs.append(Leg(operation, (index,), leg.attempt + 1))
    return legs


def _rest_of(operation: Call, branch: int, ids: Sequence[int]) -> Call | None:
    match operation:
        case ExtendedScore(prompt=prompt, options=options):
            option = options[branch]
            return msgspec.structs.replace(
                operation, prompt=(*prompt, *option[: len(ids)]), options=(option[len(ids) :],)
            )
        case Score():
            return continued_score(operation, len(ids))
        case ExtendedGenerate(seed=seed):
            alone = msgspec.structs.replace(operation, n=1, seed=None if seed is None else seed + branch)
            if ids and operation.stop:
                return None
            operation = msgspec.structs.replace(alone, min_tokens=max(0, operation.min_tokens - len(ids)))
    # What was drawn was drawn: only a greedy continuation goes on as it would have.
    is_certain = operation.temperature == 0 and can_continue(operation)
    return continued(operation, ids) if not ids or is_certain else None
