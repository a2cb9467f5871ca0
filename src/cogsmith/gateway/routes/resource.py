"""A path and what its methods do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cogsmith.gateway.problems import not_here

Handler = Callable[[Request], Awaitable[Response]]


def resource(path: str, **handlers: Handler) -> Route:
    """One route with a handler for each method. Any other method is answered 405, with all of these in `Allow`."""

    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](request)

    return Route(path, answer, methods=list(handlers))


def refuse(why: str) -> Handler:
    """A handler for what only the hosted service can do."""

    async def answer(request: Request) -> Response:
        raise not_here(why)

    return answer
