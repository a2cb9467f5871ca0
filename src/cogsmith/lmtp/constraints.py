"""Constraints: what can be told of one without running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

import msgspec

from cogsmith.errors import ProtocolError
from cogsmith.lmtp.extended import CONSTRAINT_FORMS, Constraint

Kind = Literal["regex", "json_schema", "lark", "choice"]

_KINDS: tuple[Kind, ...] = ("regex", "json_schema", "lark", "choice")
_FIX = f"give {CONSTRAINT_FORMS}"
_SCHEMA_FIX = "give a schema, a JSON object"


def kind_of(constraint: Constraint) -> Kind:
    """Return the name of the form that `constraint` is in. Raises ProtocolError where it is in none, or in several."""
    kinds = [kind for kind in _KINDS if getattr(constraint, kind) is not None]
    if len(kinds) != 1:
        raise ProtocolError(f"constraint has {' and '.join(kinds) or 'no form'}", fix=_FIX)
    return kinds[0]


def check(constraint: Constraint) -> None:
    """Raises ProtocolError where `constraint` is in not just one form, is empty, or its schema is no JSON object."""
    kind = kind_of(constraint)
    value = getattr(constraint, kind)
    if kind == "json_schema":
        _check_schema(value)
    elif not value:
        raise ProtocolError(f"constraint.{kind} is empty", fix="give one character at least")
    if constraint.choice is not None and "" in constraint.choice:
        empty = constraint.choice.index("")
        raise ProtocolError(f"constraint.choice[{empty}] is an empty text", fix="give texts of one character at least")


def text_of(constraint: Constraint) -> str:
    """Return what the form holds as one text, a schema as JSON; the choices, each on a line."""
    if constraint.choice is not None:
        return "\n".join(constraint.choice)
    schema = constraint.json_schema
    if isinstance(schema, Mapping):
        return msgspec.json.encode(schema).decode()
    return schema or constraint.regex or constraint.lark or ""


def _check_schema(schema: Mapping[str, object] | str) -> None:
    try:
        parsed = json.loads(schema) if isinstance(schema, str) else schema
    except (ValueError, RecursionError) as error:
        raise ProtocolError("constraint.json_schema is no JSON", fix=_SCHEMA_FIX) from error
    if not isinstance(parsed, Mapping):
        raise ProtocolError("constraint.json_schema is no JSON object", fix=_SCHEMA_FIX)
