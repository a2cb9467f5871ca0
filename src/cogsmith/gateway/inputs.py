"""A JSON object against a schema: every fault of it, in the words of Replicate's validator (Go's gojsonschema).

The schema is the OpenAPI 3.0 that Cog writes for a model's inputs. Replicate refuses inputs that a model does not have,
where Cog drops them silently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cogsmith.gateway.problems import InvalidField

Schema = Mapping[str, Any]

_REFERENCE = "#/components/schemas/"


def check_input(openapi_schema: Schema, inputs: Mapping[str, Any]) -> list[InvalidField]:
    """Every fault of a prediction's `inputs` against the model's schema."""
    schemas = openapi_schema["components"]["schemas"]
    return list(_Checker(schemas).object(schemas["Input"], inputs, "input"))


def check_body(schema: Schema, body: Mapping[str, Any]) -> list[InvalidField]:
    """Every fault of a request's `body` against `schema`."""
    return list(_Checker({}).object(schema, body, ""))


class _Checker:
    """Checks values against schemas that may refer to the named `schemas`."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas

    def object(self, schema: Schema, value: Mapping[str, Any], field: str) -> Iterator[InvalidField]:
        """Yield the faults of an object that has the schema's properties and no others."""
        properties: Mapping[str, Schema] = schema.get("properties", {})
        for name in schema.get("required", []):
            if name not in value:
                yield InvalidField("required", field, f"{name} is required")
        for name, item in value.items():
            if name in properties:
                yield from self.value(properties[name], item, f"{field}.{name}" if field else name)
            else:
                yield InvalidField(
                    "additional_property_not_allowed", field, f"Additional property {name} is not allowed"
                )

    def value(self, schema: Schema, value: Any, field: str) -> Iterator[InvalidField]:
        """Yield the faults of a value."""
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].removeprefix(_REFERENCE)]
        for part in schema.get("allOf", []):
            yield from self.value(part, value, field)
        expected = schema.get("type")
        if expected is not None and not _IS_A[expected](value):
            yield InvalidField("invalid_type", field, f"Invalid type. Expected: {expected}, given: {_type(value)}")
            return
        yield from _range(schema, value, field)
        if "enum" in schema and value not in schema["enum"]:
            allowed = ", ".join(json.dumps(choice) for choice in schema["enum"])
            yield InvalidField("enum", field, f"{field} must be one of the following: {allowed}")
        if isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                yield from self.value(schema["items"], item, f"{field}.{index}")


def _range(schema: Schema, value: Any, field: str) -> Iterator[InvalidField]:
    if not _is_number(value):
        return
    if "minimum" in schema and value < schema["minimum"]:
        yield InvalidField("number_gte", field, f"Must be greater than or equal to {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        yield InvalidField("number_lte", field, f"Must be less than or equal to {schema['maximum']}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


_IS_A: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _is_integer,
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _type(value: Any) -> str:
    """The JSON type of a value."""
    if value is None:
        return "null"
    # Every integer is a number too: the narrower name comes first.
    return next(name for name, is_a in _IS_A.items() if is_a(value))
