"""Lines: `VERB SP JSON`, the form of all that travels outside a batch.

Through Replicate a server's line holds one object (`TOKEN {…}` and a newline). On a WebSocket each text message is
one line, and a server's holds a list of objects (`TOKEN [{…}]`); a client's always holds one object.

Lines are ASCII with JSON's own escapes, so no reader can take a character of a string for a line's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw

from cogsmith.errors import InternalError, ProtocolError
from cogsmith.lmtp.messages import (
    OPERATIONS,
    Info,
    Message,
    MessageError,
    Operation,
    Reply,
    Token,
    TokenError,
)
from cogsmith.lmtp.payload import UNREADABLE, dump_payload, parse_payload, shown

MAX_LINE = 16 * 2**20
"""Characters of the longest line a reader takes, unless it is told otherwise."""

M = TypeVar("M", bound=Message)

_REPLIES: dict[str, tuple[type[Token | Info], type[TokenError | MessageError]]] = {
    Token.verb: (Token, TokenError),
    Info.verb: (Info, MessageError),
}
_KNOWN_VERBS = ", ".join([*OPERATIONS, *_REPLIES])

_list = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])


def encode_line(message: Operation | Reply) -> str:
    """Return the message as a line with its newline. Raises InternalError where JSON cannot hold a value."""
    return f"{message.verb} {dump_payload(message)}\n"


def encode_items(messages: Sequence[Reply]) -> str:
    """Return a server's messages as one WebSocket text.

    Raises InternalError where they are not all of one verb, or JSON cannot hold a value.
    """
    verbs = {message.verb for message in messages}
    if len(verbs) != 1:
        raise InternalError(f"one text carries messages of one verb, not of {sorted(verbs)}")
    return f"{verbs.pop()} [{', '.join(map(dump_payload, messages))}]"


def parse_line(line: str) -> list[Operation | Reply]:
    """Read one line of either side, in either framing, with or without its newline.

    Unknown fields are ignored. Raises ProtocolError, and nothing else.
    """
    verb, space, text = line.removesuffix("\n").removesuffix("\r").partition(" ")
    if not space or "\n" in text:
        raise ProtocolError(f"{shown(line)} is not a line of the form VERB JSON")
    try:
        payload = text.encode()
    except UnicodeEncodeError as error:
        raise ProtocolError(f"a {shown(verb)} line is not Unicode text: {error}") from error
    if verb in OPERATIONS:
        return [_parse(OPERATIONS[verb], payload)]
    if verb in _REPLIES:
        plain, failed = _REPLIES[verb]
        return [_parse(failed if _has_error(item) else plain, item) for item in _items(payload)]
    raise ProtocolError(f"{shown(verb)} is not a verb", fix=f"use one of {_KNOWN_VERBS}")


class LineReader:
    """Puts lines together from text that arrives in pieces of any size.

    Lines end in LF or CRLF; blank ones are dropped. After a ProtocolError a reader is of no further use.
    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._pieces: list[str] = []
        self._length = 0

    def feed(self, text: str) -> list[str]:
        """Take the next piece; return the lines it completes, without their ends.

        Raises ProtocolError once a line is longer than `max_line` characters.
        """
        lines: list[str] = []
        *ends, rest = text.split("\n")
        for end in ends:
            self._keep(end)
            lines.append("".join(self._pieces).removesuffix("\r"))
            self._pieces, self._length = [], 0
        self._keep(rest)
        return [line for line in lines if line]

    def close(self) -> None:
        """Say that no more comes. Raises ProtocolError where the text ended inside a line."""
        if self._length:
            start = shown("".join(self._pieces))
            raise ProtocolError(f"the text ended inside a line: {start}", fix="end every line with a newline")

    def _keep(self, piece: str) -> None:
        """Add to the unfinished line."""
        self._length += len(piece)
        if self._length > self._max_line:
            raise ProtocolError(f"a line is longer than {self._max_line} characters")
        if piece:
            self._pieces.append(piece)


def _parse(kind: type[M], payload: Raw | bytes) -> M:
    """Read one object. Raises ProtocolError with all that is wrong in it."""
    parsed = parse_payload(kind, payload)
    if parsed.message is None:
        raise ProtocolError(f"{kind.verb}: {'; '.join(parsed.faults)}")
    return parsed.message


def _items(payload: bytes) -> Sequence[Raw | bytes]:
    """Return the objects of a payload in either framing; what is no list counts as one object."""
    try:
        return _list.decode(payload)
    except UNREADABLE:
        return [payload]


def _has_error(item: Raw | bytes) -> bool:
    """Tell whether an item reports a failure."""
    try:
        return "error" in _object.decode(item)
    except UNREADABLE:
        return False
