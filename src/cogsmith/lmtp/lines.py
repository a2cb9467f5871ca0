"""Lines: `VERB SP JSON`, the form of all that travels outside a batch.

Through Replicate a server's line holds one object (`TOKEN {…}` and a newline). On a WebSocket each text message is
one line, and a server's holds a list of objects (`TOKEN [{…}]`); a client's always holds one object.

Lines are ASCII with JSON's own escapes, so no reader can take a character of a string for a line's end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw

from cogsmith.errors import InternalError, ProtocolError
from cogsmith.lmtp.embedding import Embedded
from cogsmith.lmtp.extended import Cancelled, End, ExtendedToken, TokenizerFiles
from cogsmith.lmtp.messages import Info, Message, MessageError, Token, TokenError
from cogsmith.lmtp.operations import unknown_verb
from cogsmith.lmtp.payload import UNREADABLE, Parsed, dump_payload, parse_payload, shown
from cogsmith.lmtp.versions import V1_1, AnyOperation, AnyReply, parse_operation, version_of

MAX_LINE = 16 * 2**20
"""Characters of the longest line a reader takes, unless it is told otherwise."""

M = TypeVar("M", bound=Message)

_REPLIES: Mapping[str, tuple[Mapping[str, type[AnyReply]], type[AnyReply]]] = {
    "TOKEN": ({"error": TokenError, "index": ExtendedToken}, Token),
    "MSG": ({"error": MessageError, "cancelled": Cancelled, "tokenizer": TokenizerFiles, "token_ids": Embedded}, Info),
    "END": ({}, End),
}
"""A server's types by verb: those told by a field that they have, the first that is there, and the one without."""

_KNOWN_VERBS = ", ".join([*V1_1.operations, *_REPLIES])

_list = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])


def encode_line(message: AnyOperation | AnyReply) -> str:
    """Return the message as a line with its newline. Raises InternalError where JSON cannot hold a value."""
    return f"{message.verb} {dump_payload(message)}\n"


def encode_items(messages: Sequence[AnyReply]) -> str:
    """Return a server's messages as one WebSocket text.

    Raises InternalError where they are not all of one verb, or JSON cannot hold a value.
    """
    verbs = {message.verb for message in messages}
    if len(verbs) != 1:
        raise InternalError(f"one text carries messages of one verb, not of {sorted(verbs)}")
    return f"{verbs.pop()} [{', '.join(map(dump_payload, messages))}]"


def parse_line(line: str) -> list[AnyOperation | AnyReply]:
    """Read one line of either side, in either framing, with or without its newline.

    Unknown fields are ignored, but for those of an operation of 1.1. Raises ProtocolError, and nothing else.
    """
    verb, space, text = line.removesuffix("\n").removesuffix("\r").partition(" ")
    if not space or "\n" in text:
        raise ProtocolError(f"{shown(line)} is not a line of the form VERB JSON")
    try:
        payload = text.encode()
    except UnicodeEncodeError as error:
        raise ProtocolError(f"a {shown(verb)} line is not Unicode text: {error}") from error
    if verb in V1_1.operations:
        return [_operation(verb, payload)]
    if verb in _REPLIES:
        return [_reply(verb, item) for item in _items(payload)]
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


def _operation(verb: str, payload: bytes) -> AnyOperation:
    """Read a client's object. Raises ProtocolError with all that is wrong in it."""
    version = version_of(payload)
    if verb not in version.operations:
        raise ProtocolError(unknown_verb(verb, version))
    return _checked(verb, parse_operation(version, version.operations[verb], payload))


def _reply(verb: str, item: Raw | bytes) -> AnyReply:
    """Read a server's object. Raises ProtocolError with all that is wrong in it."""
    told_by_field, kind = _REPLIES[verb]
    fields = _fields(item)
    kind = next((told for field, told in told_by_field.items() if field in fields), kind)
    return _checked(verb, parse_payload(kind, item))


def _checked(verb: str, parsed: Parsed[M]) -> M:
    if parsed.message is None:
        raise ProtocolError(f"{verb}: {'; '.join(parsed.faults)}")
    return parsed.message


def _items(payload: bytes) -> Sequence[Raw | bytes]:
    """Return the objects of a payload in either framing; what is no list counts as one object."""
    try:
        return _list.decode(payload)
    except UNREADABLE:
        return [payload]


def _fields(item: Raw | bytes) -> Collection[str]:
    """Return the names of an item's fields; none where it is no object."""
    try:
        return _object.decode(item).keys()
    except UNREADABLE:
        return ()
