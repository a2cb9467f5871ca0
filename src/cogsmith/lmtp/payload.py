"""One message's payload: JSON text from a message, and a message from JSON text.

Reading judges every field by itself, against the annotations in `messages` and `extended`, so that a peer hears of
all its mistakes at once, each with the value and what to give instead.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, Generic, TypeVar, get_args

import msgspec
from msgspec import Raw

from cogsmith.errors import InternalError, ProtocolError
from cogsmith.lmtp import constraints, masks
from cogsmith.lmtp.extended import Allow, Constraint
from cogsmith.lmtp.messages import MAX_INTEGER, Message, Number, PerToken, TokenId, TokenIds, TopK

T = TypeVar("T")
M = TypeVar("M", bound=Message)

UNREADABLE = (msgspec.DecodeError, RecursionError)
"""What msgspec raises for text that is not JSON, JSON of another type, and JSON nested too deeply."""

_LONGEST_SHOWN = 60

MOST_ENTRIES_SHOWN = 3
"""Of many mistakes of one kind, so many are told to the peer."""

_PLAIN_DECIMAL = re.compile(r"0|[1-9][0-9]{0,15}")

Reader = Callable[[Raw], Any]
"""Reads one field's JSON. Raises one of UNREADABLE, or ProtocolError where it can say better what is wrong."""

_object = msgspec.json.Decoder(dict[str, Raw])
_list = msgspec.json.Decoder(list[Raw])
_nulls = msgspec.json.Decoder(list[None])
_number: msgspec.json.Decoder[float] = msgspec.json.Decoder(Number)
_token_id: msgspec.json.Decoder[int] = msgspec.json.Decoder(TokenId)
_token_ids: msgspec.json.Decoder[tuple[int, ...]] = msgspec.json.Decoder(TokenIds)
_top_k: msgspec.json.Decoder[int] = msgspec.json.Decoder(TopK)
_per_token: msgspec.json.Decoder[Mapping[int, float]] = msgspec.json.Decoder(PerToken)
_allow: msgspec.json.Decoder[Allow | None] = msgspec.json.Decoder(Allow | None)
_constraint: msgspec.json.Decoder[Constraint | None] = msgspec.json.Decoder(Constraint | None)


@dataclass(frozen=True, slots=True)
class Parsed(Generic[M]):
    """What a payload turned out to be: a `message`, or None and the `faults` that forbid it.

    `stream_id` is None where none could be read. `unknown` names the fields that the type does not have.
    """

    message: M | None
    stream_id: int | None = None
    faults: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def dump_payload(message: Message, instead: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Return the payload's JSON text: one line, ASCII, with the fields of `instead` in place of the message's own.

    Raises InternalError where JSON cannot hold a value.
    """
    spelled_out = {name: getattr(message, name) for name in message.always_sent}
    try:
        return json.dumps({**spelled_out, **msgspec.to_builtins(message), **instead}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InternalError(f"a {message.verb} message holds what JSON cannot: {error}") from error


def parse_payload(kind: type[M], raw: Raw | bytes, readers: Mapping[str, Reader] = MappingProxyType({})) -> Parsed[M]:
    """Read a payload of the type `kind`, the fields named in `readers` by these.

    Raises nothing: what is wrong is in the answer's `faults`.
    """
    try:
        given = _object.decode(raw)
    except UNREADABLE:
        return Parsed(None, faults=(f"the payload is {shown(raw)} (give an object)",))
    fields = _fields(kind)
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, field in fields.items():
        if name not in given:
            faults += [f"{name} is missing (give {field.rule})"] if field.required else []
            continue
        try:
            values[name] = readers.get(name, field.read)(given[name])
        except ProtocolError as error:
            faults.append(f"{error.message} ({error.fix})" if error.fix else error.message)
        except UNREADABLE:
            faults += _faults(field, given[name])
    unknown = tuple(name for name in given if name not in fields)
    message = None if faults else kind(**values)
    return Parsed(message, values.get("stream_id"), tuple(faults), unknown)


def shown(value: Raw | bytes | str) -> str:
    """Quote a peer's value in a message: JSON as it came, or a string in quotes; shortened, on one line."""
    text = json.dumps(value) if isinstance(value, str) else bytes(value).decode(errors="replace")
    start = " ".join(text[: _LONGEST_SHOWN + 1].split())
    return start if len(text) <= _LONGEST_SHOWN else f"{start[:_LONGEST_SHOWN]}..."


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field is read, and how its rule is told to a peer."""

    name: str
    required: bool
    rule: str
    read: Reader


@functools.cache
def _fields(kind: type[Message]) -> Mapping[str, _Field]:
    """Return the fields of a message type by name."""
    return {
        field.name: _Field(
            field.name,
            field.required,
            _rule(field.type),
            _READERS.get(field.name) or msgspec.json.Decoder(field.type).decode,
        )
        for field in msgspec.structs.fields(kind)
    }


def _rule(annotation: Any) -> str:
    """Return the words in which an annotation describes its legal values; of `Rule | None`, those of the rule."""
    described = annotation if hasattr(annotation, "__metadata__") else get_args(annotation)[0]
    return str(described.__metadata__[-1].description)


def _faults(field: _Field, raw: Raw) -> list[str]:
    """Say what is wrong with a field that was refused: its first bad entries, or the whole."""
    find_entries = _BAD_ENTRIES.get(field.name, _no_entries)
    entries = list(islice(find_entries(field.name, raw), MOST_ENTRIES_SHOWN + 1))
    if len(entries) > MOST_ENTRIES_SHOWN:
        entries[-1] = f"{field.name} has more entries like these"
    return entries or [f"{field.name} is {shown(raw)} (give {field.rule})"]


def _no_entries(name: str, raw: Raw) -> Iterator[str]:
    """Find nothing, in a field that is no collection."""
    return iter(())


def _bad_ids(name: str, raw: Raw) -> Iterator[str]:
    """Yield what is wrong with single items of a list of token ids."""
    items = _decoded(_list, raw)
    for index, item in enumerate(items or []):
        if _decoded(_token_id, item) is None:
            yield f"{name}[{index}] is {shown(item)} (give {_rule(TokenId)})"


def _bad_options(name: str, raw: Raw) -> Iterator[str]:
    """Yield what is wrong with single ids in a list of lists."""
    options = _decoded(_list, raw)
    for index, option in enumerate(options or []):
        yield from _bad_ids(f"{name}[{index}]", option)


def _bad_biases(name: str, raw: Raw) -> Iterator[str]:
    """Yield what is wrong with single entries of an object of numbers by token id."""
    for key, item in (_decoded(_object, raw) or {}).items():
        if not _PLAIN_DECIMAL.fullmatch(key) or int(key) > MAX_INTEGER:
            yield f'{name} has the key {shown(key)} (give a token id in plain decimal, such as "42")'
        elif _decoded(_number, item) is None:
            yield f"{name}[{shown(key)}] is {shown(item)} (give {_rule(Number)})"


def _decoded(decoder: msgspec.json.Decoder[T], raw: Raw) -> T | None:
    """Return what the text holds, or None where it is of another type."""
    try:
        return decoder.decode(raw)
    except UNREADABLE:
        return None


def read_prompt(raw: Raw) -> tuple[int, ...]:
    """Read token ids. `[null]` is an empty prompt: LMQL sends it for a tokenizer that has no BOS."""
    return () if _decoded(_nulls, raw) == [None] else _token_ids.decode(raw)


def read_allow(raw: Raw) -> Allow | None:
    """Read a mask. Raises one of UNREADABLE, or ProtocolError for one that `masks.check` refuses."""
    allow = _allow.decode(raw)
    if allow is not None:
        masks.check(allow)
    return allow


def _read_constraint(raw: Raw) -> Constraint | None:
    """Read a constraint. Raises one of UNREADABLE, or ProtocolError for one that `constraints.check` refuses."""
    constraint = _constraint.decode(raw)
    if constraint is not None:
        constraints.check(constraint)
    return constraint


def _read_top_k(raw: Raw) -> int:
    """Read `top_k` with -1, which some clients send for "off", as 0."""
    return max(_top_k.decode(raw), 0)


def _read_bias(raw: Raw) -> Mapping[int, float]:
    """Read numbers by token id."""
    # msgspec takes "-0" for a key 0. The only strings here are keys, so a sign after a quote is a signed key.
    if b'"-' in bytes(raw):
        raise msgspec.ValidationError("signed key")
    return _per_token.decode(raw)


_READERS: Mapping[str, Reader] = {
    "allow": read_allow,
    "constraint": _read_constraint,
    "logit_bias": _read_bias,
    "prompt": read_prompt,
    "top_k": _read_top_k,
}
"""Fields that need more than their annotation says."""

_BAD_ENTRIES: Mapping[str, Callable[[str, Raw], Iterator[str]]] = {
    "logit_bias": _bad_biases,
    "logprob_ids": _bad_ids,
    "inputs": _bad_options,
    "options": _bad_options,
    "prompt": _bad_ids,
    "scored": _bad_ids,
}
"""Fields that may hold many thousands of entries, of which few are bad."""
