"""Files on a web server: http and https, read-only. A server cannot be asked what else it has."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from urllib.parse import unquote, urljoin, urlsplit

import httpx2

from cogsmith.errors import SourceError
from cogsmith.sources.stores import faults
from cogsmith.sources.stores.base import Interrupted, StoredObject, md5_of
from cogsmith.sources.stores.credentials import CONNECT_SECONDS, READ_SECONDS

# A compressed answer would have another length, and a part of it would be a part of something else.
_AS_IT_IS = {"Accept-Encoding": "identity"}
_NO_HEAD = (HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


class WebServer:
    """One address. Keys are whole addresses; what is shown of them has no password and no query."""

    def __init__(self, uri: str) -> None:
        self.uri = shown(uri)

    def describe(self, key: str) -> StoredObject | None:
        """Return what is at the address `key`; None where the server has nothing there. Raises SourceError."""
        with self._explained(key):
            answer = self._client.head(key)
            if answer.status_code in _NO_HEAD or (answer.is_success and _size(answer) is None):
                with self._client.stream("GET", key, headers={"Range": "bytes=0-0"}) as answer:
                    pass  # the head is enough
            if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
                return None
            answer.raise_for_status()
        size = _size(answer)
        if size is None:
            raise SourceError(
                f"{shown(key)}: the server does not say how long it is", fix="fetch the file and name its path"
            )
        return StoredObject(key, _name(key), size, _version(answer), _md5(answer))

    def below(self, key: str) -> Sequence[StoredObject]:
        """Return nothing: the web has no folders."""
        return []

    def read(self, stored: StoredObject, start: int) -> tuple[int, Generator[bytes]]:
        """Return the content from byte `start` on, or from 0 where the server cannot skip, and where it begins.

        Raises SourceError where it is no longer what was described, and Interrupted, also while it is read.
        """
        answer = self._open(stored, start)
        if _version(answer) != stored.version or _size(answer) not in (stored.size, None):
            answer.close()
            raise SourceError(f"{shown(stored.key)} changed while it was fetched", fix="run again")
        begin = _begin(answer)
        if begin is None or begin not in (start, 0):
            answer.close()
            raise Interrupted(f"the server sent another part than the one from byte {start} on")
        return begin, self._content(stored.key, answer)

    def link_targets(self, link: StoredObject, text: str) -> Sequence[str]:
        """Return the address that `text` means, seen from the link's own; it stays on this server."""
        target = urljoin(link.key, text)
        if urlsplit(target)[:2] != urlsplit(link.key)[:2]:
            raise SourceError(f"{shown(link.key)} leads to another server", fix="name the file that is meant itself")
        return [target]

    def missing(self, key: str) -> SourceError:
        """Say that there is nothing at `key`, and that one file must be named."""
        return SourceError(
            f"{shown(key)} is no file on that server",
            fix="check the address; it must be one file's, because a web server does not list a folder's files",
        )

    @cached_property
    def _client(self) -> httpx2.Client:
        timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        return httpx2.Client(follow_redirects=True, timeout=timeout, headers=_AS_IT_IS)

    def _open(self, stored: StoredObject, start: int) -> httpx2.Response:
        """Ask for the bytes from `start` on, if the file is still the same one; without proof of that, for all."""
        skips = start > 0 and stored.version and not stored.version.startswith("W/")
        # RFC 9110, 13.1.5: another version is sent whole.
        headers = {"Range": f"bytes={start}-", "If-Range": stored.version} if skips else {}
        with self._explained(stored.key, while_reading=True):
            answer = self._client.send(self._client.build_request("GET", stored.key, headers=headers), stream=True)
            if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and headers:
                # It says that what is here already is more than there is: from the beginning, then.
                answer.close()
                answer = self._client.send(self._client.build_request("GET", stored.key), stream=True)
            if answer.is_error:
                answer.close()
                answer.raise_for_status()
        return answer

    def _content(self, key: str, answer: httpx2.Response) -> Generator[bytes]:
        try:
            with self._explained(key, while_reading=True):
                # In the pieces that come: larger ones would be lost with the connection, half-filled.
                yield from answer.iter_raw()
        finally:
            answer.close()

    @contextmanager
    def _explained(self, key: str, *, while_reading: bool = False) -> Iterator[None]:
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            answer = error.response if isinstance(error, httpx2.HTTPStatusError) else None
            if while_reading and (answer is None or answer.is_server_error or answer.status_code == 429):
                raise Interrupted(type(error).__name__ if answer is None else f"HTTP {answer.status_code}") from None
            raise _fault(error, answer, key) from None


def shown(address: str) -> str:
    """Return an address without what may be secret in it: a password, a query with a signature."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _name(address: str) -> str:
    """Return the last part of an address as a file's name."""
    name = unquote(urlsplit(address).path.rpartition("/")[2])
    return re.sub(r"[/\\\0]", "_", name).lstrip(".") or "index"


def _fault(error: Exception, answer: httpx2.Response | None, key: str) -> SourceError:
    if answer is None:
        return faults.explain(error, shown(key), "http")
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return SourceError(f"{shown(key)}: access was refused", fix=faults.CREDENTIALS["http"])
    return SourceError(f"{shown(key)}: the server answered HTTP {answer.status_code}", fix="check it, and run again")


def _size(answer: httpx2.Response) -> int | None:
    """Return the whole file's length, also from the head of a part; None where the answer does not say."""
    whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        return int(whole) if whole.isdecimal() else None
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and "Content-Encoding" not in answer.headers else None


def _begin(answer: httpx2.Response) -> int | None:
    """Return the first byte of an answer's content; None for a part that does not say which it is."""
    if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
        return 0
    stated = re.match(r"bytes ([0-9]{1,18})-", answer.headers.get("Content-Range", ""))
    return int(stated[1]) if stated else None


def _version(answer: httpx2.Response) -> str:
    """Return what If-Range compares, as it was sent."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def _md5(answer: httpx2.Response) -> str | None:
    """Return the MD5 that Azure, Google and many others send of the whole file, in RFC 1864's header."""
    encoded = answer.headers.get("Content-MD5")
    if encoded is None or answer.status_code != HTTPStatus.OK:
        return None
    return md5_of(encoded)
