"""Who may come in, how often and with how much: ASGI middlewares in front of the whole gateway.

They answer before a request is read, in the same problem details as the routes.
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cogsmith.gateway.problems import HTTPProblem

__all__ = ["BodyLimit", "Closing", "RateLimit", "RateLimits", "TokenAuth", "is_creation", "is_stream"]

_SCHEMES = ("bearer", "token")
_WINDOW_SECONDS = 60.0


def is_stream(scope: Scope) -> bool:
    """Whether a prediction's stream is asked for. Its URL is a secret of its own: clients send no token with it."""
    return scope["type"] == "http" and _parts(scope)[:1] == ["stream"]


def is_creation(scope: Scope) -> bool:
    """Whether a prediction is to be created."""
    return scope["type"] == "http" and scope["method"] == "POST" and _parts(scope)[-1:] == ["predictions"]


class TokenAuth:
    """Lets in who knows the token: `Authorization: Bearer TOKEN`, or `Token TOKEN` as older clients send it.

    A WebSocket may give it as `?token=TOKEN` instead, because its clients cannot always set headers. Files directly in
    `open_folder` anybody may read: a browser sends no token for a page, which then asks for it.
    """

    def __init__(self, app: ASGIApp, token: str, *, open_folder: str | None = None) -> None:
        self._app = app
        self._open_folder = open_folder
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass on."""
        if scope["type"] == "lifespan" or is_stream(scope) or self._is_open(scope) or self._knows_token(scope):
            await self._app(scope, receive, send)
            return
        problem = HTTPProblem(401, "Unauthenticated", "You did not pass a valid authentication token")
        await problem.response()(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        if self._open_folder is None or scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return False
        folder, _, file = scope["path"].rpartition("/")
        return f"{folder}/" == self._open_folder or f"{folder}/{file}/" == self._open_folder

    def _knows_token(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() not in _SCHEMES and scope["type"] == "websocket":
            (given,) = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[:1]
        elif scheme.lower() not in _SCHEMES:
            given = ""
        return hmac.compare_digest(given.strip().encode(), self._token)


class BodyLimit:
    """Refuses bodies of more than `max_bytes`, announced or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._limited = RequestBodyLimitMiddleware(app, max_bytes)
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413, or pass on."""
        length = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if length.isdigit() and int(length) > self._max_bytes:
            problem = HTTPProblem(
                413,
                "Content too large",
                f"The body has {length} bytes, and this gateway takes {self._max_bytes} (--max-body)",
            )
            await problem.response()(scope, receive, send)
            return
        await self._limited(scope, receive, send)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Requests a minute: creations of predictions, and all others. The defaults are the hosted service's."""

    creations: int = 600
    others: int = 3000
    enforced: bool = False


class RateLimit:
    """Tells clients how many requests they have left, as the hosted service does; refuses more only where enforced."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self._app = app
        self._enforced = limits.enforced
        self._creations = _Window(limits.creations)
        self._others = _Window(limits.others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429, or pass on and add the headers."""
        if scope["type"] != "http" or is_stream(scope):
            await self._app(scope, receive, send)
            return
        window = self._creations if is_creation(scope) else self._others
        granted = window.take()
        headers = {"ratelimit-remaining": str(window.remaining), "ratelimit-reset": str(window.reset)}
        if self._enforced and not granted:
            await throttled(window.reset, headers).response()(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Closing:
    """Refuses new predictions once `closing` is set; what runs goes on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503, or pass on."""
        if self.closing and is_creation(scope):
            problem = HTTPProblem(
                503, "Service unavailable", "This gateway is shutting down and takes no more predictions"
            )
            await problem.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)


def throttled(seconds: int, headers: dict[str, str] | None = None) -> HTTPProblem:
    """The answer to one request too many, in Replicate's words: come back in `seconds`."""
    return HTTPProblem(
        429,
        "Too many requests",
        f"Request was throttled. Your rate limit resets in ~{seconds}s.",
        headers={**(headers or {}), "Retry-After": str(seconds)},
    )


class _Window:
    """Counts requests in windows of a minute."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._ends = 0.0

    @property
    def remaining(self) -> int:
        """Requests left in this window."""
        return max(self._limit - self._taken, 0)

    @property
    def reset(self) -> int:
        """Seconds until the next window, at least one."""
        return max(math.ceil(self._ends - time.monotonic()), 1)

    def take(self) -> bool:
        """Count a request; whether it was within the limit."""
        now = time.monotonic()
        if now >= self._ends:
            self._taken, self._ends = 0, now + _WINDOW_SECONDS
        self._taken += 1
        return self._taken <= self._limit


def _parts(scope: Scope) -> Sequence[str]:
    """The path's parts, without the version that it may begin with."""
    parts = [part for part in str(scope.get("path", "")).split("/") if part]
    return parts[1:] if parts[:1] == ["v1"] else parts
