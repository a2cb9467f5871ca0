"""What the body of a new prediction may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import httpx2

from cogsmith.gateway.prediction import Change, Webhook
from cogsmith.gateway.problems import InvalidField

_LAST_PORT = 65535
_CHANGES: tuple[Change, ...] = get_args(Change)

BODY: dict[str, Any] = {
    "properties": {
        "input": {"type": "object"},
        "stream": {"type": "boolean"},
        "webhook": {"type": "string"},
        "webhook_completed": {"type": "string"},
        "webhook_events_filter": {"type": "array", "items": {"type": "string", "enum": list(_CHANGES)}},
    },
    "required": ["input"],
}
"""Its schema where the path names the model. `stream` and `webhook_completed` are what old clients send."""

VERSIONED_BODY: dict[str, Any] = {
    "properties": {"version": {"type": "string"}, **BODY["properties"]},
    "required": ["version", *BODY["required"]],
}
"""Its schema where the body names the model."""


def webhook_faults(body: Mapping[str, Any]) -> list[InvalidField]:
    """The URLs that a webhook cannot be sent to."""
    return [
        InvalidField("format", name, f"{body[name]!r} is no http or https URL")
        for name in ("webhook", "webhook_completed")
        if isinstance(body.get(name), str) and not _is_url(body[name])
    ]


def webhook(body: Mapping[str, Any], base: str) -> Webhook | None:
    """The webhook that a faultless `body` asks for. URLs in what it sends begin with `base`."""
    if "webhook" in body:
        return Webhook(body["webhook"], frozenset(body.get("webhook_events_filter", _CHANGES)), base)
    if "webhook_completed" in body:
        return Webhook(body["webhook_completed"], frozenset({"completed"}), base)
    return None


def _is_url(text: str) -> bool:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and (url.port or 0) <= _LAST_PORT
