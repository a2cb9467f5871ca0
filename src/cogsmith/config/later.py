"""What the plan of Cogsmith names and this version cannot do yet. One table, so that it is refused clearly."""

from __future__ import annotations

from collections.abc import Mapping

NOT_YET: Mapping[str, frozenset[str]] = {
    "task": frozenset({"image-text"}),
}
"""Model keys, each with its values that are not in this version; an empty set means the whole key."""


def later_key(key: str) -> bool:
    """Whether `key` is planned for a model and not known yet."""
    return key in NOT_YET and not NOT_YET[key]


def later_value(key: str, value: object) -> bool:
    """Whether `value` is planned for the model key `key` and not known yet."""
    return isinstance(value, str) and value in NOT_YET.get(key, frozenset())
