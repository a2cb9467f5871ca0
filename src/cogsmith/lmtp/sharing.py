"""What the operations of a batch have in common, so that it is sent once: the sender's half of `handles`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cogsmith.lmtp.extended import Allow, ExtendedGenerate, ExtendedScore
from cogsmith.lmtp.handles import Define
from cogsmith.lmtp.messages import Message

# Below these, a definition and its names are hardly shorter than saying it in full.
_SHORTEST_PREFIX = 32  # ids
_SHORTEST_MASK = 200  # bytes of JSON


def factor_out(operations: Sequence[Message]) -> tuple[list[Define], dict[int, dict[str, Any]]]:
    """Find what operations of 1.1 share: return definitions, and by operation's index the fields that use them."""
    definitions: list[Define] = []
    uses: dict[int, dict[str, Any]] = {}
    extended = {i: one for i, one in enumerate(operations) if isinstance(one, ExtendedGenerate | ExtendedScore)}
    for prefix, members in _groups({i: one.prompt for i, one in extended.items()}):
        name = f"p{len(definitions)}"
        definitions.append(Define(name=name, prompt=prefix))
        for i in members:
            rest = extended[i].prompt[len(prefix) :]
            uses.setdefault(i, {})["prompt"] = {"name": name, "then": rest} if rest else {"name": name}
    for allow, members in _equal_masks(extended):
        name = f"m{len(definitions)}"
        definitions.append(Define(name=name, allow=allow))
        for i in members:
            uses.setdefault(i, {})["allow"] = {"name": name}
    return definitions, uses


def _groups(prompts: Mapping[int, tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Yield the beginnings that several prompts have in common, each with the prompts' keys.

    In lexicographic order prompts with a common beginning are neighbours. A group takes in the next prompt where that
    saves more ids than its prefix, which may get shorter, loses by it.
    """
    prefix: tuple[int, ...] = ()
    group: list[int] = []
    for key in sorted(prompts, key=prompts.__getitem__):
        common = _common(prefix, prompts[key])
        if len(common) >= _SHORTEST_PREFIX and len(group) * len(common) > (len(group) - 1) * len(prefix):
            prefix = common
            group.append(key)
            continue
        if len(group) > 1:
            yield prefix, group
        prefix, group = prompts[key], [key]
    if len(group) > 1:
        yield prefix, group


def _equal_masks(operations: Mapping[int, ExtendedGenerate | ExtendedScore]) -> Iterator[tuple[Allow, list[int]]]:
    """Yield the masks that several operations have, where a name is shorter, each with the operations' keys."""
    members: dict[Allow, list[int]] = {}
    for key, operation in operations.items():
        if isinstance(operation, ExtendedGenerate) and operation.allow is not None:
            members.setdefault(operation.allow, []).append(key)
    for allow, keys in members.items():
        if len(keys) > 1 and len(msgspec.json.encode(allow)) >= _SHORTEST_MASK:
            yield allow, keys


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the longest common beginning."""
    if a == b:
        return a
    return a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))]
