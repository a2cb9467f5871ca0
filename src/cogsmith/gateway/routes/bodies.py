"""What requests say in their bodies and headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from cogsmith.gateway.problems import HTTPProblem

# What is taken is shown again, within a list of others like it: there must be room for more levels around it.
_MAX_LEVELS = 200
_MAX_WAIT_SECONDS = 60
_WAIT = re.compile(r"wait(?:\s*=\s*\"?(\d{1,6})\"?)?", re.IGNORECASE)
_DURATION = re.compile(r"(?=\d)(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?")


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object that is the request's body. Raises HTTPProblem."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise HTTPProblem(
            415,
            "Unsupported media type",
            f"The body must be application/json, not {content_type or 'of no stated type'}",
        )
    try:
        return parse_object(await request.body())
    except ClientDisconnect as error:
        raise HTTPProblem(400, "Bad request", "The body ended early") from error
    except ValueError as error:
        raise HTTPProblem(400, "Bad request", f"The body {error}") from error


def parse_object(text: bytes | str) -> dict[str, Any]:
    """The JSON object that `text` is. Raises ValueError, which says what it is or does instead."""
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, nested beyond all reason
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")
    if _has_more_levels(value, _MAX_LEVELS):
        raise ValueError(f"is nested more than {_MAX_LEVELS} levels deep")
    return value


def wait_seconds(headers: Mapping[str, str]) -> int:
    """How long the caller would wait for the end: `Prefer: wait[=SECONDS]`, 60 at most; 0 for not at all.

    What makes no sense is ignored, as RFC 7240 has it for preferences.
    """
    for preference in headers.get("prefer", "").split(","):
        if match := _WAIT.fullmatch(preference.strip()):
            return min(int(match[1] or _MAX_WAIT_SECONDS), _MAX_WAIT_SECONDS)
    return 0


def deadline(headers: Mapping[str, str]) -> datetime | None:
    """When the prediction shall be cancelled: `Cancel-After: 300`, `30s`, `1m`, `1h30m`. Raises HTTPProblem."""
    text = headers.get("cancel-after")
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    duration = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not duration:
        raise HTTPProblem(
            400,
            "Invalid Cancel-After header",
            f"{text!r} is no duration: say seconds, or hours, minutes, seconds as 1h30m",
        )
    return datetime.now(UTC) + duration


def _has_more_levels(value: dict[str, Any], levels: int) -> bool:
    """Whether lists and objects lie in `value` more than so many levels deep."""
    level: list[Any] = [value]
    for _ in range(levels):
        items = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True
