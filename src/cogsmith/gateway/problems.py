"""What goes wrong, as HTTP answers: problem details (RFC 9457) in Replicate's words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cogsmith.errors import CogsmithError, Overloaded, ShuttingDown, UnknownResource
from cogsmith.gateway.present import Json

_LATER = {"Retry-After": "1"}


@dataclass(frozen=True, slots=True)
class InvalidField:
    """One fault of a request's body: its `type` as Replicate names it, the `field` it is in ("" is the body itself)."""

    type: str
    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class ProblemResponse(Json):
    """A problem as an answer."""

    media_type = "application/problem+json"


class HTTPProblem(Exception):
    """A request that is answered with a problem. `members` are what the problem says beside the usual."""

    def __init__(
        self, status: int, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.headers = headers
        self.members = members

    def response(self) -> Response:
        """The answer."""
        body = {"title": self.title, "detail": str(self), "status": self.status, **self.members}
        return ProblemResponse(body, self.status, self.headers)


def invalid(fields: Sequence[InvalidField]) -> HTTPProblem:
    """Every fault of a body in one problem."""
    detail = "".join(f"- {field}\n" for field in fields)
    return HTTPProblem(422, "Input validation failed", detail, invalid_fields=[asdict(field) for field in fields])


def not_here(what: str) -> HTTPProblem:
    """A request that only the hosted service can fulfil; `what` says why."""
    return HTTPProblem(403, "Not possible here", what)


def from_error(error: Exception) -> HTTPProblem:
    """The problem that says `error`, whatever it is."""
    match error:
        case HTTPProblem():
            return error
        case UnknownResource():
            return HTTPProblem(404, "Not found", _detail(error))
        case ShuttingDown():
            return HTTPProblem(503, "Service unavailable", _detail(error), headers=_LATER)
        case Overloaded():
            return HTTPProblem(429, "Too many predictions", _detail(error), headers=_LATER)
        case _:
            return HTTPProblem(500, "Internal server error", "The gateway failed; its log says how")


def _detail(error: CogsmithError) -> str:
    return f"{error.message}; {error.fix}" if error.fix else error.message


async def _answer(request: Request, error: Exception) -> Response:
    return from_error(error).response()


async def _answer_unrouted(request: Request, error: Exception) -> Response:
    """What Starlette raises says neither which path nor which method."""
    if not isinstance(error, HTTPException):
        raise error
    title = HTTPStatus(error.status_code).phrase.capitalize()
    detail = f"{error.detail}: {request.method} {request.url.path}"
    return HTTPProblem(error.status_code, title, detail, headers=error.headers).response()


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    HTTPException: _answer_unrouted,
    **dict.fromkeys([HTTPProblem, UnknownResource, Overloaded, Exception], _answer),
}
"""For Starlette: how each kind of error is answered."""
