"""What may stand in no key at all: access tokens, and values that JSON, the form they travel in, cannot hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import Any

from cogsmith.config.access_tokens import holds_token
from cogsmith.config.findings import Finding, show
from cogsmith.config.positions import KeyPath


def check(value: Any, path: KeyPath = ()) -> Iterator[Finding]:
    """Yield a finding for each such value in `value` and below."""
    match value:
        case dict():
            yield from _table(value, path)
        case list():
            for index, item in enumerate(value):
                yield from check(item, (*path, index))
        case str() if holds_token(value):
            yield _secret(path)
        case float() if not math.isfinite(value):
            yield Finding(path, f"{show(value)} is not a number that can be used", "write a finite number")
        case int() if not -(2**63) <= value < 2**63:
            yield Finding(path, f"{show(value)} does not fit in 64 bits", "write a smaller number")
        case date() | time():
            yield Finding(path, f"{show(value)} is a date or time", f'write it as text: "{show(value)}"')


def _table(table: Mapping[str, Any], path: KeyPath) -> Iterator[Finding]:
    for key, item in table.items():
        if holds_token(key):
            yield _secret((*path, key))
        yield from check(item, (*path, key))


def _secret(path: KeyPath) -> Finding:
    return Finding(
        path,
        "this looks like an access token, which does not belong in a file",
        "take it out, revoke it if others have seen the file, and set it in the environment: "
        "HF_TOKEN for Hugging Face, REPLICATE_API_TOKEN for Replicate",
    )
