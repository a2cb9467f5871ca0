"""Long lists a page at a time: `{next, previous, results}`, with URLs that lead on."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request

from cogsmith.gateway.problems import HTTPProblem

T = TypeVar("T")

_PAGE_LENGTH = 100


def page(
    request: Request, newest_first: Iterable[T], number: Callable[[T], int], present: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """The page that the request's `cursor` leads to, of items whose `number` falls.

    A cursor says where a page begins or, backwards, ends, so that pages keep their content while new items come.
    Raises HTTPProblem for a cursor that is none.
    """
    backwards, bound = _read_cursor(request.query_params.get("cursor"))
    if backwards and bound is not None:
        newer = list(itertools.takewhile(lambda item: number(item) > bound, newest_first))
        shown, has_previous, has_next = newer[-_PAGE_LENGTH:], len(newer) > _PAGE_LENGTH, True
    else:
        older = itertools.dropwhile(lambda item: bound is not None and number(item) >= bound, newest_first)
        found = list(itertools.islice(older, _PAGE_LENGTH + 1))
        shown, has_previous, has_next = found[:_PAGE_LENGTH], bound is not None, len(found) > _PAGE_LENGTH
    return {
        "previous": _url(request, {"r": 1, "p": number(shown[0])}) if shown and has_previous else None,
        "next": _url(request, {"p": number(shown[-1])}) if shown and has_next else None,
        "results": [present(item) for item in shown],
    }


def whole(results: list[dict[str, Any]]) -> dict[str, Any]:
    """A list that is one page."""
    return {"previous": None, "next": None, "results": results}


def _read_cursor(cursor: str | None) -> tuple[bool, int | None]:
    """Whether it leads backwards, and the number of the item that it leads from."""
    if cursor is None:
        return False, None
    try:
        values = parse_qs(base64.b64decode(cursor, validate=True).decode("ascii"), strict_parsing=True)
        return "r" in values, int(values["p"][0])
    except (binascii.Error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise HTTPProblem(
            400, "Invalid cursor", f"{cursor!r} is no cursor: use `next` or `previous` of a page"
        ) from error


def _url(request: Request, position: dict[str, int]) -> str:
    cursor = base64.b64encode(urlencode(position).encode()).decode()
    return str(request.url.include_query_params(cursor=cursor))
