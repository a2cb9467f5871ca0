"""What is left to ask of an operation whose answer was cut, once some of its tokens have come.

Asking for it gives the tokens that an undisturbed run would have given wherever the next token follows from the text so
far. Penalties and constraints, which look at the continuation only, not the prompt, forbid that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from cogsmith.lmtp.extended import ExtendedGenerate
from cogsmith.lmtp.messages import Generate, Score

G = TypeVar("G", bound=Generate)


def can_continue(operation: Generate) -> bool:
    """Whether the next token depends on the text so far alone, wherever its prompt ends."""
    constrained = isinstance(operation, ExtendedGenerate) and operation.constraint is not None
    return not (constrained or operation.presence_penalty or operation.frequency_penalty)


def continued(operation: G, ids: Sequence[int]) -> G:
    """Return the generation of what comes after `ids`, which have come."""
    return msgspec.structs.replace(
        operation, prompt=(*operation.prompt, *ids), max_tokens=operation.max_tokens - len(ids)
    )


def continued_score(operation: Score, num_scored: int) -> Score:
    """Return the scoring of what comes after the first `num_scored` tokens."""
    done, left = operation.scored[:num_scored], operation.scored[num_scored:]
    return msgspec.structs.replace(operation, prompt=(*operation.prompt, *done), scored=left)
