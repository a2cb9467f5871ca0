"""Literals as Cog's static reader sees them, and as Python does.

Cog takes a string's source text between its quotes, escapes and all, and silently drops what it cannot read: an
f-string, a sum, a pair of adjacent strings. Here a literal passes only if both readings are the same value.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


class UnreadableLiteral(ValueError):
    """A value that Cog would drop or read differently. The message says why."""


def read(node: ast.expr, source: str, constants: Mapping[str, ast.expr] | None = None) -> Any:
    """Return the value of the literal `node` in `source`.

    `constants` are module-level `NAME = literal` assignments that may be referred to. Raises UnreadableLiteral.
    """
    text = ast.get_source_segment(source, node) or ""
    match node:
        case ast.Name() if constants and node.id in constants:
            return read(constants[node.id], source)
        case ast.List() | ast.Tuple():
            return [read(element, source, constants) for element in node.elts]
        case ast.Dict():
            return _read_dict(node, source)
        case ast.Constant(value=None | bool()):
            return node.value
        case ast.Constant(value=str(value)):
            return _read_string(text, value)
        case ast.Constant() | ast.UnaryOp():
            return _read_number(text)
    raise UnreadableLiteral(f"`{text}` is computed, and Cog would silently drop it")


def _read_dict(node: ast.Dict, source: str) -> dict[str, Any]:
    if not all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in node.keys):
        raise UnreadableLiteral("the keys of a dictionary must be plain strings")
    keys = [read(key, source) for key in node.keys if key is not None]
    return dict(zip(keys, (read(value, source) for value in node.values), strict=True))


def _read_string(text: str, value: str) -> str:
    if "\n" in text:
        raise UnreadableLiteral("the string spans several lines")
    body = text[1:] if text.startswith("r") else text
    if body[:1] not in ("'", '"') or body[1:-1] != value:
        raise UnreadableLiteral(f"Cog would read {text} differently: no escapes, prefixes or adjacent strings")
    return value


def _read_number(text: str) -> int | float:
    if not _PLAIN_NUMBER.fullmatch(text):
        raise UnreadableLiteral(f"`{text}` is not a plain decimal number")
    return float(text) if re.search("[.eE]", text) else int(text)
