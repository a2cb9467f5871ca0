"""Handles: within a batch, a prompt or a mask is defined once and named wherever it is used.

    ["DEFINE", {"lmtp": "1.1", "name": "p", "prompt": [1, 2, 3]}]
    ["GENERATE", {"lmtp": "1.1", "prompt": {"name": "p", "then": [4]}, "allow": {"name": "m"}, …}]

They exist on the wire only: `sharing` finds what to define, and `Handles` puts it back as a batch is read. Operations
that use one definition then hold the same object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

import msgspec
from msgspec import Meta, Raw

from cogsmith.errors import ProtocolError
from cogsmith.lmtp.extended import VERSION, Allow, Version
from cogsmith.lmtp.messages import Message, TokenIds
from cogsmith.lmtp.payload import UNREADABLE, Reader, read_allow, read_prompt, shown

T = TypeVar("T")

Name = Annotated[str, Meta(min_length=1, max_length=64, description="a string of 1 to 64 characters")]
"""What a definition is called within its batch."""


class Define(Message, frozen=True, kw_only=True):
    """Names a prompt or a mask for the operations that follow it in the batch. It is no stream."""

    verb: ClassVar[str] = "DEFINE"
    always_sent: ClassVar[tuple[str, ...]] = ("lmtp",)

    lmtp: Version = VERSION
    name: Name
    prompt: Annotated[TokenIds | None, Meta(description="a list of token ids")] = None
    allow: Annotated[Allow | None, Meta(description='{"ranges": [[from, to], ...]} or {"bits": base64}')] = None


class _Use(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named prompt, and the ids that follow it."""

    name: Name
    then: TokenIds = ()


class _UseWhole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named mask."""

    name: Name


_use = msgspec.json.Decoder(_Use)
_use_whole = msgspec.json.Decoder(_UseWhole)
_object = msgspec.json.Decoder(dict[str, Raw])


class Handles:
    """What the definitions of a batch named so far.

    Together, the prompts that are read through it may have `max_ids` ids: names make a short batch into much.
    """

    def __init__(self, max_ids: int) -> None:
        self._max_ids = max_ids
        self._num_ids = 0
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._masks: dict[str, Allow] = {}
        self._ambiguous: set[str] = set()

    @property
    def readers(self) -> Mapping[str, Reader]:
        """How the fields of an operation that may hold names are read."""
        return {"prompt": self._read_prompt, "allow": self._read_allow}

    def define(self, definition: Define) -> None:
        """Keep a definition. Raises ProtocolError where it defines not one thing, or its name is taken."""
        name = definition.name
        if (definition.prompt is None) == (definition.allow is None):
            given = "neither prompt nor allow" if definition.prompt is None else "both prompt and allow"
            raise ProtocolError(f"{shown(name)} has {given}", fix="define one of them")
        if name in self._prompts or name in self._masks:
            self._ambiguous.add(name)
            raise ProtocolError(f"{shown(name)} is defined already", fix="give each definition its own name")
        if definition.prompt is not None:
            self._prompts[name] = definition.prompt
        elif definition.allow is not None:
            self._masks[name] = definition.allow

    def _read_prompt(self, raw: Raw) -> tuple[int, ...]:
        if _is_object(raw):
            use = _decode(_use, raw, 'give {"name": ..., "then": token ids}, or token ids alone')
            start = self._find(use.name, self._prompts, "prompt")
            # Without a rest the defined object itself, not a copy.
            prompt = (*start, *use.then) if use.then else start
        else:
            prompt = read_prompt(raw)
        total = self._num_ids + len(prompt)
        if total > self._max_ids:
            raise ProtocolError(
                f"with this prompt's {len(prompt)} ids the batch has {total} in all, more than {self._max_ids}",
                fix="send the operations in several batches",
            )
        self._num_ids = total
        return prompt

    def _read_allow(self, raw: Raw) -> Allow | None:
        if _is_object(raw) and "name" in _object.decode(raw):
            use = _decode(_use_whole, raw, 'give {"name": ...} alone')
            return self._find(use.name, self._masks, "allow")
        return read_allow(raw)

    def _find(self, name: str, defined: Mapping[str, T], field: str) -> T:
        if name in self._ambiguous:
            raise ProtocolError(f"{field} names {shown(name)}, which is defined twice", fix="give each its own name")
        if name in defined:
            return defined[name]
        fault = "defined as something else" if name in self._prompts or name in self._masks else "not defined"
        raise ProtocolError(f"{field} names {shown(name)}, which is {fault}", fix="define it before its use")


def _is_object(raw: Raw) -> bool:
    return bytes(raw).lstrip()[:1] == b"{"


def _decode(decoder: msgspec.json.Decoder[T], raw: Raw, form: str) -> T:
    """Raises ProtocolError where `raw` is not what the decoder reads; `form` says what was expected."""
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        raise ProtocolError(f"{shown(raw)} names nothing", fix=form) from error
