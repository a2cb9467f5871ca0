"""LMTP over a WebSocket: our gateway's, and LMQL's own `serve-model`.

Each text message is a line, and a server's holds a list of items; a server of LMTP 1.1 also takes a whole batch as one
message. A prediction is a connection here, so that closing it ends what is left.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from cogsmith.client.http_calls import can_repeat_nothing, failure_of, reason
from cogsmith.client.retrying import retried
from cogsmith.client.transport import Timeouts
from cogsmith.errors import ServiceUnavailable, StreamBroken
from cogsmith.lmtp import MAX_LINE, AnyOperation, encode_line, serialize_batch
from cogsmith.lmtp.extended import VERSION


class _WithoutTokens(logging.Filter):
    """Lets no header pass that says who we are: at DEBUG, websockets logs all of them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` may be logged."""
        return not (isinstance(record.args, tuple) and record.args and record.args[0] == "Authorization")


_log = logging.getLogger("cogsmith.client.websocket")
_log.addFilter(_WithoutTokens())


class WebSocketTransport:
    """Runs batches on the LMTP server at `url`. Implements `Transport`."""

    # An LMTP server waits for more operations.
    ends_by_itself = False

    def __init__(self, url: str, token: str | None, timeouts: Timeouts) -> None:
        self._url = url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._timeouts = timeouts

    async def run(self, operations: Sequence[AnyOperation]) -> AsyncGenerator[str]:
        """Run the operations as one prediction: see `Transport`."""
        async with await self._connected() as socket:
            num_messages = 0
            try:
                for text in _texts(operations):
                    await socket.send(text)
                while True:
                    message = await socket.recv(decode=True)
                    num_messages += 1
                    yield message + "\n"
            except ConnectionClosed as error:
                raise self._broken(num_messages) from error

    async def aclose(self) -> None:
        """Do nothing: every prediction closes its own connection."""

    async def _connected(self) -> ClientConnection:
        """Connect, several times if need be. Raises AuthenticationError, NotFound, ServiceUnavailable, RateLimited."""
        return await retried(self._connect, can_repeat_nothing)

    async def _connect(self) -> ClientConnection:
        with _typed(self._url):
            return await connect(
                self._url,
                additional_headers=self._headers,
                logger=_log,
                open_timeout=self._timeouts.connect,
                ping_timeout=self._timeouts.idle,
                max_size=MAX_LINE,
                # What a server says while a long batch is still being sent must not stop either of them.
                max_queue=None,
                proxy=None,
            )

    def _broken(self, num_messages: int) -> StreamBroken:
        fix = None if num_messages else "LMQL's own server wants to be told its `model`"
        return StreamBroken(f"{self._url} closed the connection after {num_messages} messages", fix=fix)


def _texts(operations: Sequence[AnyOperation]) -> list[str]:
    """Return the messages to send: one batch, or for LMTP 1.0, which has none here, each operation by itself."""
    if any(getattr(operation, "lmtp", None) == VERSION for operation in operations):
        return [serialize_batch(operations)]
    return [encode_line(operation).removesuffix("\n") for operation in operations]


@contextlib.contextmanager
def _typed(url: str) -> Iterator[None]:
    """Turn what connecting raises into errors of ours."""
    try:
        yield
    except InvalidStatus as error:
        answer = error.response
        text = reason(answer.body or b"")
        raise failure_of(answer.status_code, text, dict(answer.headers.raw_items()), url) from error
    except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
        raise ServiceUnavailable(f"{url} cannot be reached: {error or type(error).__name__}") from error
