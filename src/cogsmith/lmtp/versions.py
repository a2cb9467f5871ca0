"""The two versions of LMTP that are spoken, and how an operation says which one it means.

An operation without `lmtp` is of 1.0, which ignores fields that it does not know. With `"lmtp": "1.1"` it is of 1.1,
where such a field is an error: a client that asked for something must not be answered as if it had not.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from cogsmith.errors import ProtocolError
from cogsmith.lmtp.embedding import Embed, Embedded
from cogsmith.lmtp.extended import (
    VERSION,
    Cancel,
    Cancelled,
    End,
    ExtendedGenerate,
    ExtendedScore,
    ExtendedToken,
    GetTokenizer,
    TokenizerFiles,
)
from cogsmith.lmtp.messages import OPERATIONS, Message, ModelInfo, Operation, Reply
from cogsmith.lmtp.payload import MOST_ENTRIES_SHOWN, UNREADABLE, Parsed, Reader, parse_payload, shown

M = TypeVar("M", bound=Message)

ExtendedOperation = ExtendedGenerate | ExtendedScore | Embed | Cancel | GetTokenizer
"""What a client of 1.1 may send besides MODEL_INFO."""

ExtendedReply = ExtendedToken | End | Embedded | Cancelled | TokenizerFiles
"""What a server may send besides, to operations of 1.1 only."""

AnyOperation = Operation | ExtendedOperation
"""What a client sends, in either version."""

AnyReply = Reply | ExtendedReply
"""What a server sends, in either version."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of LMTP: its operations by verb, and whether a field that it does not know is an error."""

    name: str
    operations: Mapping[str, type[AnyOperation]]
    strict: bool


V1_0 = Version("1.0", OPERATIONS, strict=False)
V1_1 = Version(
    VERSION,
    {kind.verb: kind for kind in (ExtendedGenerate, ExtendedScore, Embed, Cancel, GetTokenizer, ModelInfo)},
    strict=True,
)


class _Versioned(msgspec.Struct):
    """The one field that says how to read the others."""

    lmtp: Any = msgspec.UNSET


_versioned = msgspec.json.Decoder(_Versioned)


def version_of(payload: Raw | bytes) -> Version:
    """Return the version that an operation is of. Raises ProtocolError for one that is not spoken.

    What is no object is of 1.0, to be refused there.
    """
    try:
        lmtp = _versioned.decode(payload).lmtp
    except UNREADABLE:
        return V1_0
    if lmtp is msgspec.UNSET:
        return V1_0
    if lmtp == VERSION:
        return V1_1
    raise ProtocolError(
        f"lmtp is {shown(msgspec.json.encode(lmtp))}, and 1.0 and 1.1 are spoken",
        fix='give "1.1", or leave lmtp out for 1.0',
    )


def parse_operation(
    version: Version, kind: type[M], payload: Raw | bytes, readers: Mapping[str, Reader] = MappingProxyType({})
) -> Parsed[M]:
    """Read an operation's payload as `version` says: in a strict one, its unknown fields are faults.

    `readers` read the fields that they name. Raises nothing.
    """
    parsed = parse_payload(kind, payload, readers)
    unknown = tuple(name for name in parsed.unknown if name != "lmtp")
    if not (version.strict and unknown):
        return Parsed(parsed.message, parsed.stream_id, parsed.faults, unknown)
    return Parsed(None, parsed.stream_id, (*parsed.faults, *_unknown_fields(version, kind, unknown)))


def _unknown_fields(version: Version, kind: type[Message], names: tuple[str, ...]) -> Iterator[str]:
    known = [field.name for field in msgspec.structs.fields(kind)]
    for name in names[:MOST_ENTRIES_SHOWN]:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give only {', '.join(known)}"
        yield f"{shown(name)} is no field of {kind.verb} in LMTP {version.name} ({hint})"
    if len(names) > MOST_ENTRIES_SHOWN:
        yield f"there are {len(names) - MOST_ENTRIES_SHOWN} more such fields"
