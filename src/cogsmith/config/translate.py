"""pydantic's errors in the words of this project. The only place that knows pydantic's error types."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cogsmith.config.findings import Finding, Refusal, dotted, show
from cogsmith.config.positions import KeyPath
from cogsmith.config.raw import RawConfig, RawModel
from cogsmith.config.tables import LIST, TEXT

# pydantic's type -> what was expected, and how to write it. {key} and {value} are the user's own.
_TYPES = {
    "string_type": ("text", 'write it in quotes: {key} = "{value}"'),
    "int_type": ("a whole number", "write digits without quotes or a decimal point, such as {key} = 8"),
    "float_type": ("a number", "write digits without quotes, such as {key} = 8.5"),
    "bool_type": ("true or false", "write {key} = true or {key} = false, without quotes"),
    "list_type": ("a list", 'write {key} = ["...", "..."]'),
    "dict_type": ("a table", "write {key}.NAME = VALUE"),
    "model_type": ("a table", "write {key}.NAME = VALUE"),
}


def findings(error: ValidationError) -> Iterator[Finding]:
    """Yield a finding for each error that pydantic collected in a RawConfig."""
    for detail in error.errors(include_url=False):
        yield _finding(detail)


def _finding(detail: ErrorDetails) -> Finding:
    path = tuple(part for part in detail["loc"] if part not in (TEXT, LIST))
    value, kind = detail["input"], detail["type"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, value)
    if kind in _TYPES:
        return _wrong_type(path, value, kind)
    return Finding(path, *_wrong_value(detail["msg"], value, context))


def _wrong_value(message: str, value: Any, context: Mapping[str, Any]) -> tuple[str, str]:
    match context:
        case {"error": Refusal() as refusal}:
            return refusal.message, refusal.fix
        case {"expected": expected}:
            quoted = ", in quotes" if "'" in expected else ""
            return f"expected {expected}, got {show(value)}", f"write {expected}{quoted}"
        case {"gt": bound}:
            return f"expected a number above {bound:g}, got {show(value)}", f"write a number above {bound:g}"
        case {"ge": bound}:
            return f"expected {bound:g} or more, got {show(value)}", f"write a number from {bound:g} on"
        case _:
            return f"{message}, got {show(value)}", "write another value"


def _wrong_type(path: KeyPath, value: Any, kind: str) -> Finding:
    expected, how = _TYPES[kind]
    simple = isinstance(value, int | float) and not isinstance(value, bool)
    if path == ("models",):
        how = "write one [models.NAME] section a model"
    fix = how.format(key=dotted(path[-1:]), value=show(value) if simple else "...")
    return Finding(path, f"expected {expected}, got {show(value)}", fix)


def _unknown_key(path: KeyPath, value: Any) -> Finding:
    table, keys = _split(path)
    return Finding(path, "unknown key", _remedy(table, path, keys, value))


def _remedy(table: type[BaseModel], path: KeyPath, keys: KeyPath, value: Any) -> str:
    owner = _table_at(table, keys[:-1])
    key, known = str(keys[-1]), sorted(owner.model_fields)
    if elsewhere := _elsewhere(owner, key):
        return elsewhere
    if near := difflib.get_close_matches(key, known, n=1):
        return f"write {near[0]}, or remove it"
    if owner is RawConfig and (near := difflib.get_close_matches(key, RawModel.model_fields, n=1)):
        return f"put {near[0]} below a [models.NAME] or [defaults] line"
    if owner is RawModel and isinstance(value, dict) and path[0] == "models":
        name = f"{path[1]}.{key}"
        return f"if {show(name)} is the model's name, write [models.{dotted((name,))}]; else remove {show(key)}"
    return f"remove it; known here: {', '.join(known)}"


def _elsewhere(owner: type[BaseModel], key: str) -> str | None:
    """Say where in or around a model `key` belongs, if it is a known one in the wrong table."""
    if owner is not RawModel:
        return None
    for outer, table in _tables(RawModel).items():
        if key in table.model_fields:
            return f"write {outer}.{key}"
    if key in RawConfig.model_fields:
        return f"put {key} at the top of the file, before the first [section]"
    return f"write config.{key}" if key.startswith("load_in_") else None


def _split(path: KeyPath) -> tuple[type[BaseModel], KeyPath]:
    """Return the outermost table type that has a fixed set of keys, and the keys from there on."""
    if path[0] == "models" and len(path) > 2:
        return RawModel, path[2:]
    if path[0] == "defaults" and len(path) > 1:
        return RawModel, path[1:]
    return RawConfig, path


def _table_at(table: type[BaseModel], keys: KeyPath) -> type[BaseModel]:
    for key in keys:
        table = _tables(table)[str(key)]
    return table


def _tables(table: type[BaseModel]) -> dict[str, type[BaseModel]]:
    fields = table.model_fields.items()
    annotations = {name: field.annotation for name, field in fields}
    return {name: kind for name, kind in annotations.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
