"""One parameter of `run` and its `Input(…)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cogsmith.workdir import literals
from cogsmith.workdir.module import Module

# Input()'s arguments, and the JSON Schema keywords they become.
_KEYWORDS = {
    "description": "description",
    "ge": "minimum",
    "le": "maximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "regex": "pattern",
    "deprecated": "deprecated",
    "accept": "x-cog-accept",
}
_NUMERIC = ("minimum", "maximum")
_TEXTUAL = ("minLength", "maxLength", "pattern")
_EXPECTED = {"minimum": (int, float), "maximum": (int, float), "minLength": (int,), "maxLength": (int,)}

_PYTHON_TYPES = {"boolean": (bool,), "integer": (int,), "number": (int, float), "string": (str,)}


@dataclass(frozen=True, slots=True)
class RunInput:
    """An input of a prediction.

    `type` is its JSON Schema, `keywords` the schema's other words (`minimum`, `description`), `choices` the
    values it is restricted to. `default` counts only where `has_default` is true.
    """

    name: str
    type: Mapping[str, Any]
    has_default: bool = False
    default: Any = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] = ()


def read_input(module: Module, name: str, schema: Mapping[str, Any], default: ast.expr | None) -> RunInput:
    """Read the parameter `name` of type `schema` with its default, reporting what Cog would not take."""
    if default is None:
        return RunInput(name, schema)
    if not isinstance(default, ast.Call):
        found = _value(module, name, "default", default, module.constants())
        return RunInput(name, schema, has_default=found is not None or _is_none(default), default=found)
    if not _is_input(module, default):
        module.report(
            default,
            f"{name}: `{ast.unparse(default.func)}(…)` is not Input()",
            "write `from cog import Input` and call it by that bare name",
        )
        return RunInput(name, schema)
    return _read_call(module, name, schema, default)


def _read_call(module: Module, name: str, schema: Mapping[str, Any], call: ast.Call) -> RunInput:
    if call.args:
        module.report(call, f"{name}: Cog drops a positional default", "write `Input(default=…)`")
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg not in ("default", "choices", *_KEYWORDS):
            module.report(call, f"{name}: Input() takes no `{keyword.arg}`", "remove it, or give a plain default")
            continue
        _check_not_parenthesised(module, name, keyword)
        constants = module.constants() if keyword.arg in ("default", "choices", "description") else None
        values[keyword.arg] = _value(module, name, keyword.arg, keyword.value, constants)
    given = {key: value for key, value in values.items() if value is not None and value is not False}
    words = {_KEYWORDS[key]: value for key, value in given.items() if key in _KEYWORDS}
    result = RunInput(
        name,
        schema,
        has_default="default" in values,
        default=values.get("default"),
        keywords=words,
        choices=tuple(values.get("choices") or ()),
    )
    for message in _contradictions(result):
        module.report(call, f"{name}: {message}", "make type, default and constraints agree")
    return result


def _value(module: Module, name: str, argument: str, node: ast.expr, constants: Mapping[str, ast.expr] | None) -> Any:
    try:
        return literals.read(node, module.text, constants)
    except literals.UnreadableLiteral as error:
        module.report(node, f"{name}: {argument}: {error}", "write one plain literal on one line")
        return None


def _check_not_parenthesised(module: Module, name: str, keyword: ast.keyword) -> None:
    whole = ast.get_source_segment(module.text, keyword) or ""
    value = ast.get_source_segment(module.text, keyword.value) or ""
    if whole.partition("=")[2].strip() != value.strip():
        module.report(keyword, f"{name}: {keyword.arg}: Cog drops a value in parentheses", "remove the parentheses")


def _is_input(module: Module, call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and (
        call.func.id == "Input" or module.imported("cog").get(call.func.id) == "Input"
    )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _contradictions(item: RunInput) -> list[str]:
    """Say what the runtime would refuse when it loads the class."""
    kind = item.type.get("items", item.type).get("type")
    found = [
        f"{keyword} must be a number, not {item.keywords[keyword]!r}"
        for keyword, expected in _EXPECTED.items()
        if keyword in item.keywords and type(item.keywords[keyword]) not in expected
    ]
    if kind not in ("integer", "number") and any(word in item.keywords for word in _NUMERIC):
        found.append("ge and le are for numbers")
    if kind != "string" and any(word in item.keywords for word in _TEXTUAL):
        found.append("min_length, max_length and regex are for strings")
    if item.choices and kind not in ("string", "integer"):
        found.append("choices are for strings and integers")
    if len(item.choices) == 1:
        found.append("choices must have at least 2 elements")
    return found or _default_contradictions(item)


def _default_contradictions(item: RunInput) -> list[str]:
    """Say why the default is not a value that the input itself would accept."""
    if item.default is None:
        return []
    if (item.type.get("type") == "array") != isinstance(item.default, list):
        return [f"the default {item.default!r} is not of the input's type"]
    values: Sequence[Any] = item.default if isinstance(item.default, list) else [item.default]
    expected = _PYTHON_TYPES.get(item.type.get("items", item.type).get("type"))
    if expected and not all(type(value) in expected for value in values):
        return [f"the default {item.default!r} is not of the input's type"]
    words = item.keywords
    wrong = [
        value
        for value in values
        if (item.choices and value not in item.choices)
        or ("minimum" in words and value < words["minimum"])
        or ("maximum" in words and value > words["maximum"])
        or ("minLength" in words and len(value) < words["minLength"])
        or ("maxLength" in words and len(value) > words["maxLength"])
        or ("pattern" in words and not re.match(words["pattern"], value))
    ]
    return [f"the default {value!r} breaks its own constraints" for value in wrong]
