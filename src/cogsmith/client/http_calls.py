"""HTTP requests whose failures are typed, and which are sent again only where that is safe."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import logging
import time
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import stamina

from cogsmith.client.transport import Timeouts
from cogsmith.errors import (
    AuthenticationError,
    ClientError,
    InternalError,
    NotFound,
    RateLimited,
    RequestRejected,
    ServiceUnavailable,
)

# stamina tells of every retry by a warning, which Python prints where a program has not set up logging.
logging.getLogger("stamina").addHandler(logging.NullHandler())

_LONGEST_WAIT = 120.0
_MAYBE = "what was asked for may have begun: look before asking for it again"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to try, for how long, and how far apart, in seconds."""

    attempts: int | None
    seconds: float
    first_wait: float
    longest_wait: float


BRIEF = Patience(attempts=5, seconds=_LONGEST_WAIT, first_wait=0.1, longest_wait=5.0)
"""For a server that should answer."""

FOR_A_SLOT = Patience(attempts=None, seconds=60.0, first_wait=0.02, longest_wait=0.5)
"""For a Cog server, which frees a slot only some time after its last answer, so that "at capacity" is often not so."""


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


def is_busy(error: Exception) -> bool:
    """Whether to ask again soon."""
    return isinstance(error, Busy)


def is_unreachable(error: Exception) -> bool:
    """Whether the request never reached a server."""
    return isinstance(error, ServiceUnavailable) and not error.may_have_run and not is_busy(error)


def can_repeat_nothing(error: Exception) -> bool | float:
    """Whether to send a request again that must not take effect twice, or the seconds to wait before that."""
    if isinstance(error, RateLimited):
        return True if error.retry_after is None else error.retry_after <= _LONGEST_WAIT and error.retry_after
    return isinstance(error, ServiceUnavailable) and not error.may_have_run


def can_repeat_all(error: Exception) -> bool | float:
    """The same for a request that changes nothing."""
    return can_repeat_nothing(error) or isinstance(error, ServiceUnavailable)


def retrying(again: Callable[[Exception], bool | float], patience: Patience = BRIEF) -> AsyncIterable[stamina.Attempt]:
    """Return the attempts to make at something, where `again` tells whether an error allows another."""
    return stamina.retry_context(
        on=again,
        attempts=patience.attempts,
        timeout=patience.seconds,
        wait_initial=patience.first_wait,
        wait_max=patience.longest_wait,
        wait_jitter=patience.first_wait,
    )


async def send(
    client: httpx2.AsyncClient,
    request: Callable[[], httpx2.Request],
    *,
    again: Callable[[Exception], bool | float],
    patience: Patience = BRIEF,
) -> httpx2.Response:
    """Send what `request` makes, again where `again` says so; return a good answer, whose body is still to be read.

    Raises AuthenticationError, NotFound, RequestRejected, RateLimited, ServiceUnavailable.
    """
    async for attempt in retrying(again, patience):
        with attempt:
            return await send_once(client, request())
    raise InternalError("no attempt was made")


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
            fix=_MAYBE,
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
            return Busy(message)
        case 429:
            return RateLimited(message, fix="ask less often", retry_after=retry_after(headers))
    return RequestRejected(message) if status < 500 else ServiceUnavailable(message, fix=_MAYBE, may_have_run=True)


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
        # Cog lists the inputs that are wrong, as FastAPI does.
        return "; ".join(f"{'.'.join(map(str, item['loc'][2:]))}: {item['msg']}" for item in details)
    return str(details or answer.get("error") or answer.get("title") or answer).strip()


async def read_json(response: httpx2.Response) -> dict[str, Any]:
    """Read an answer's body. Raises ServiceUnavailable where it breaks off or is no JSON object."""
    try:
        async with contextlib.aclosing(response):
            body = json.loads(await response.aread())
    except (httpx2.TransportError, ValueError) as error:
        raise ServiceUnavailable(
            f"{response.url} gave no readable answer: {error}", fix=_MAYBE, may_have_run=True
        ) from error
    if not isinstance(body, dict):
        raise ServiceUnavailable(f"{response.url} gave no JSON object", fix=_MAYBE, may_have_run=True)
    return body


async def get_json(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    """Get a JSON object, several times if need be. Raises what `send` and `read_json` raise."""
    return await read_json(await send(client, lambda: client.build_request("GET", url), again=can_repeat_all))
