"""What is generated from the raw types: `config.schema.json` and the table of keys in the documentation.

`python -m cogsmith.config.schema` prints the first, with `--keys` the second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from cogsmith.config.raw import RawConfig

_TYPES = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "object": "table",
    "string": "text",
}


class _TomlSchema(GenerateJsonSchema):
    """JSON Schema without null, which TOML does not have: an absent key is absent."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        absent = schema.get("default") is None
        return self.generate_inner(schema["schema"]) if absent else super().default_schema(schema)

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def schema() -> dict[str, Any]:
    """Return the JSON Schema of config.toml, draft 2020-12."""
    generated = RawConfig.model_json_schema(schema_generator=_TomlSchema)
    return {"$schema": _TomlSchema.schema_dialect, **generated, "title": "config.toml of Cogsmith"}


def schema_json() -> str:
    """Return the text of `config.schema.json`."""
    return json.dumps(schema(), indent=2) + "\n"


def keys_markdown() -> str:
    """Return the documentation's two tables: the file's own keys, and a model's, each with type and default."""
    whole = schema()
    models = whole["$defs"]["RawModel"]
    parts = ["### The file", _table(whole, whole), "### A model, and `[defaults]`", _table(models, whole)]
    return "\n\n".join(parts) + "\n"


def _table(table: dict[str, Any], whole: dict[str, Any]) -> str:
    rows = (
        f"| `{key}` | {_type(field)} | {_default(field)} | {field['description']} |"
        for key, field in _fields(table, whole, "")
    )
    return "\n".join(["| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows])


def _fields(table: dict[str, Any], whole: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each key with its schema; a table of known keys gives way to these, dotted."""
    for key, field in table["properties"].items():
        # A table that may be no more than true or false.
        flag, *tables = field.get("anyOf", [field])
        if tables:
            yield prefix + key, {**flag, "description": field["description"]}
        kind = (tables[0] if tables else flag).get("$ref", "").rpartition("/")[2]
        if kind and kind != "RawModel":
            yield from _fields(whole["$defs"][kind], whole, f"{prefix}{key}.")
        else:
            yield prefix + key, field


def _type(field: dict[str, Any]) -> str:
    match field:
        case {"oneOf": [*forms]}:
            return " or ".join(_type(form) for form in forms)
        case {"enum": [*choices]}:
            return ", ".join(f"`{choice}`" for choice in choices)
        case {"const": choice}:
            return f"`{choice}`"
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": kind, "exclusiveMinimum": bound}:
            return f"{_TYPES[kind]} above {bound}"
        case {"type": kind, "minimum": least, "maximum": most} if kind != "number":
            return f"{_TYPES[kind]} from {least} to {most}"
        case {"type": kind}:
            return _TYPES[kind]
        case _:
            return "table"


def _default(field: dict[str, Any]) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def main() -> None:
    """Print the generated text that was asked for."""
    sys.stdout.write(keys_markdown() if "--keys" in sys.argv[1:] else schema_json())


if __name__ == "__main__":
    main()
