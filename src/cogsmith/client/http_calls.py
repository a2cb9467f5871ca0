"""HTTP requests whose failures are typed, and which are sent again only where that is safe."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from cogsmith.client.retrying import retried
from cogsmith.client.transport import Timeouts
from cogsmith.errors import (
    AuthenticationError,
    ClientError,
    NotFound,
    RateLimited,
    RequestRejected,
    ServiceUnavailable,
)

MAYBE = "what was asked for may have begun: look before asking for it again"


def http_client(timeouts: Timeouts, *, auth: httpx2.Auth | None = None, is_local: bool = True) -> httpx2.AsyncClient:
    """Return a client without a limit on connections. One on this machine is not reached through a proxy."""
    return httpx2.AsyncClient(
        auth=auth,
        timeout=httpx2.Timeout(timeouts.idle, connect=timeouts.connect, pool=None),
        # Servers close idle connections after 5 seconds; a request that meets such a close cannot be sent again safely.
        limits=httpx2.Limits(max_connections=None, keepalive_expiry=2.0),
        trust_env=not is_local,
    )


class TokenAuth(httpx2.Auth):
    """Sends a bearer token, to one host only."""

    def __init__(self, token: str, url: str) -> None:
        self._token = token
        self._host = httpx2.URL(url).netloc

    def auth_flow(self, request: httpx2.Request) -> Any:
        """Add the header."""
        if request.url.netloc == self._host:
            request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class Busy(ServiceUnavailable):
    """The server has no room now, or is not ready. Nothing was begun."""


def is_busy(error: ClientError) -> bool:
    """Whether to ask again soon."""
    return isinstance(error, Busy)


def is_unreachable(error: ClientError) -> bool:
    """Whether the request never reached a server."""
    return isinstance(error, ServiceUnavailable) and not error.may_have_run and not is_busy(error)


def can_repeat_nothing(error: ClientError) -> bool:
    """Whether to send a request again that must not take effect twice."""
    return isinstance(error, RateLimited) or (isinstance(error, ServiceUnavailable) and not error.may_have_run)


def can_repeat_all(error: ClientError) -> bool:
    """The same for a request that changes nothing."""
    return isinstance(error, RateLimited | ServiceUnavailable)


async def send(
    client: httpx2.AsyncClient,
    request: Callable[[], httpx2.Request],
    *,
    again: Callable[[ClientError], bool],
) -> httpx2.Response:
    """Send what `request` makes, again where `again` says so; return a good answer, whose body is still to be read.

    Raises AuthenticationError, NotFound, RequestRejected, RateLimited, ServiceUnavailable.
    """
    return await retried(lambda: send_once(client, request()), again)


async def send_once(client: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
    """Send a request; return a good answer, whose body is still to be read. Raises as `send` does."""
    place = f"{request.method} {request.url}"
    try:
        response = await client.send(request, stream=True)
        if response.is_success:
            return response
        await response.aread()
        await response.aclose()
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise ServiceUnavailable(
            f"{request.url.netloc.decode()} cannot be reached: {error or type(error).__name__}"
        ) from error
    except httpx2.TransportError as error:
        raise ServiceUnavailable(
            f"{place} got no answer: {error or type(error).__name__}",
            fix=MAYBE,
            may_have_run=True,
        ) from error
    raise failure(response, place)


def failure(response: httpx2.Response, place: str) -> ClientError:
    """Return the error that an answer with an error status stands for. `place` is what was asked."""
    return failure_of(response.status_code, reason(response.content), response.headers, place)


def failure_of(status: int, text: str, headers: Mapping[str, str], place: str) -> ClientError:
    """Return the error that an HTTP status stands for; `text` is the server's own word on it."""
    message = f"{place} was answered with {status}: {text}"
    match status:
        case 401 | 403:
            return AuthenticationError(message, fix="give a valid token, by REPLICATE_API_TOKEN or as `token`")
        case 404:
            return NotFound(message, fix="check the name, and that the token may see it")
        case 409 | 503:
            # Nothing was begun: 409 is Cog's word for "no free slot", 503 for "not ready".
            return Busy(message, retry_after=retry_after(headers))
        case 429:
            return RateLimited(message, fix="ask less often", retry_after=retry_after(headers))
    return RequestRejected(message) if status < 500 else ServiceUnavailable(message, fix=MAYBE, may_have_run=True)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait, by RFC 9110 §10.2.3 or `ratelimit-reset`; None if none."""
    value = headers.get("retry-after") or headers.get("ratelimit-reset")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, moment.timestamp() - time.time())


def reason(body: bytes | bytearray) -> str:
    """Return the text of an error answer: Replicate and Cog say it as `detail`, `error` or `title`."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()[:500] or "no text"
    if not isinstance(answer, dict):
        return str(answer)[:500]
    details = answer.get("detail")
    if isinstance(details, list):
        return "; ".join(map(_detail, details))
    return str(details or answer.get("error") or answer.get("title") or answer).strip()


def _detail(item: Any) -> str:
    """Return one of the inputs that are wrong, as Cog lists them after FastAPI; another server may list anything."""
    match item:
        case {"loc": [_, _, *path], "msg": what} if path:
            return f"{'.'.join(map(str, path))}: {what}"
        case {"msg": what}:
            return str(what)
    return str(item)


async def read_json(response: httpx2.Response) -> dict[str, Any]:
    """Read an answer's body. Raises ServiceUnavailable where it breaks off or is no JSON object."""
    try:
        async with contextlib.aclosing(response):
            body = json.loads(await response.aread())
    except (httpx2.TransportError, ValueError) as error:
        raise ServiceUnavailable(
            f"{response.url} gave no readable answer: {error}", fix=MAYBE, may_have_run=True
        ) from error
    if not isinstance(body, dict):
        raise ServiceUnavailable(f"{response.url} gave no JSON object", fix=MAYBE, may_have_run=True)
    return body


async def get_json(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    """Get a JSON object, several times if need be. Raises what `send` and `read_json` raise."""

    async def get() -> dict[str, Any]:
        return await read_json(await send_once(client, client.build_request("GET", url)))

    # An answer that breaks off on its way is no answer yet, so its reading belongs to the attempt.
    return await retried(get, can_repeat_all)
