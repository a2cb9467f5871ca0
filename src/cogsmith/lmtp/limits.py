"""How much one batch may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cogsmith.lmtp import constraints, masks
from cogsmith.lmtp.embedding import Embed
from cogsmith.lmtp.extended import ExtendedGenerate, ExtendedScore
from cogsmith.lmtp.messages import Generate, Score
from cogsmith.lmtp.versions import AnyOperation


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one batch may ask a server to hold. Anything larger is refused before work is spent on it."""

    max_bytes: int = 16 * 2**20
    """Bytes of the batch's text in UTF-8."""
    max_operations: int = 64
    """Operations; as many definitions may stand beside them."""
    max_prompt_ids: int = 1_000_000
    """Ids in one `prompt`, in one `scored`, in all `options` of one SCORE, and in all `inputs` of one EMBED."""
    max_texts: int = 1024
    """Texts of one EMBED."""
    max_bias_entries: int = 1_000_000
    """Entries of one `logit_bias`."""
    max_all_prompt_ids: int = 8 * 2**20
    """Ids in the prompts of all operations of 1.1, what is named in them counted in full: as many as a text holds."""
    max_mask: int = 1_000_000
    """Ranges, or bytes of the bitset, of one `allow`."""
    max_constraint: int = 256 * 1024
    """Characters of one `constraint`."""
    max_choices: int = 10_000
    """Texts of one `constraint.choice`."""
    max_stop_length: int = 1000
    """Characters or ids in one entry of `stop`."""
    max_branches: int = 512
    """Branches of all operations of 1.1 together: their `n`, and their numbers of options."""


DEFAULT_LIMITS = BatchLimits()
"""Room for the largest masks of today's vocabularies, several times over."""


def num_branches(operation: AnyOperation) -> int:
    """How many branches an operation of 1.1 has; 0 for one that has no branches."""
    match operation:
        case ExtendedGenerate(n=n):
            return n
        case ExtendedScore(options=options):
            return len(options)
    return 0


def excesses(operation: AnyOperation, limits: BatchLimits) -> Iterator[str]:
    """Yield which of an operation's collections are larger than `limits` allow."""
    for name, size, most in _sizes(operation, limits):
        if size > most:
            yield f"{name} has {size} entries (give at most {most})"


def _sizes(operation: AnyOperation, limits: BatchLimits) -> Iterator[tuple[str, int, int]]:
    """Yield each collection's name, its size and the limit on it."""
    if isinstance(operation, Generate | Score | ExtendedScore):
        yield "prompt", len(operation.prompt), limits.max_prompt_ids
    match operation:
        case Generate(logit_bias=bias):
            yield "logit_bias", len(bias), limits.max_bias_entries
        case Score(scored=scored):
            yield "scored", len(scored), limits.max_prompt_ids
        case ExtendedScore(options=options):
            yield "options", sum(map(len, options)), limits.max_prompt_ids
        case Embed(texts=texts, inputs=inputs):
            yield "texts" if inputs is None else "inputs", len(texts or inputs or ()), limits.max_texts
            yield "inputs", sum(map(len, inputs or ())), limits.max_prompt_ids
    if isinstance(operation, ExtendedGenerate):
        yield "allow", masks.weight(operation.allow) if operation.allow else 0, limits.max_mask
        if operation.constraint is not None:
            yield "constraint", len(constraints.text_of(operation.constraint)), limits.max_constraint
            yield "constraint.choice", len(operation.constraint.choice or ()), limits.max_choices
        for index, stop in enumerate(operation.stop):
            yield f"stop[{index}]", len(stop), limits.max_stop_length
