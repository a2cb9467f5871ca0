"""One line for each request: who asked for what, how it ended, how long it took. Never a body, a token or a key."""

from __future__ import annotations

import logging
import re
import time
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGGER = "cogsmith.access"

_log = logging.getLogger(LOGGER)
# What follows is a secret: whoever knows it may read the stream.
_STREAM_KEY = re.compile(r"(/stream/)[^/]+")


class AccessLog:
    """Logs requests at the level INFO when they have ended. Queries are left out: they may hold a token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and log."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        ending = "no answer"

        async def watch(message: Message) -> None:
            nonlocal ending
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                ending = str(message["status"])
            elif message["type"] == "websocket.accept":
                ending = "101"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            client, _ = scope.get("client") or ("-", 0)
            method = scope.get("method", "WEBSOCKET")
            # Quoted, as it was sent: a line break or an escape sequence in it must not reach the terminal.
            path = _STREAM_KEY.sub(r"\1…", quote(scope["path"], safe="/:$"))
            _log.info("%s %s %s %s %.0f ms", client, method, path, ending, 1000 * (time.monotonic() - started))
