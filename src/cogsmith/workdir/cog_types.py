"""What Cog makes of a type annotation on `run`: a fragment of JSON Schema.

Cog reads the annotation without importing anything, so a type is known by its name alone. Two readers must agree:
the command line's static one, and the runtime's. Only what both accept passes here.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

JsonSchema = dict[str, Any]

PRIMITIVES: Mapping[str, JsonSchema] = {
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "int": {"type": "integer"},
    "str": {"type": "string"},
    "Path": {"type": "string", "format": "uri"},
    "File": {"type": "string", "format": "uri"},
    "Secret": {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True},
    "Any": {"type": "object"},
}
_DICTS = ("dict", "Dict")
_LISTS = ("list", "List")
_ITERATORS = ("Iterator", "AsyncIterator")
_CONCATENATING = ("ConcatenateIterator", "AsyncConcatenateIterator")
_NOT_IN_UNIONS = ("Path", "File", "Secret")


class UnknownType(ValueError):
    """An annotation that Cog rejects. The message says which part."""


def input_schema(node: ast.expr, typed_dicts: frozenset[str] = frozenset()) -> JsonSchema:
    """Return the schema of a parameter annotated with `node`.

    `typed_dicts` are the TypedDict classes of the same file. Raises UnknownType.
    """
    node = _unquoted(node)
    if members := _union_members(node):
        return _union_schema(members, typed_dicts)
    name, arguments = _name_and_arguments(node)
    if name in _LISTS and len(arguments) == 1:
        element = input_schema(arguments[0], typed_dicts)
        if element.get("type") == "array" or "anyOf" in element or "nullable" in element:
            raise UnknownType(f"`{ast.unparse(node)}` nests a list, an optional or a union in a list")
        return {"type": "array", "items": element}
    if name in _DICTS or (name in typed_dicts and not arguments):
        return {"type": "object"}
    if name in PRIMITIVES and not arguments:
        return dict(PRIMITIVES[name])
    raise UnknownType(f"`{ast.unparse(node)}` is not a type that Cog accepts for an input")


def output_schema(node: ast.expr) -> JsonSchema:
    """Return the schema of what a `run` returns when its return annotation is `node`. Raises UnknownType."""
    node = _unquoted(node)
    if _union_members(node):
        raise UnknownType(f"`{ast.unparse(node)}`: an output must be neither optional nor a union")
    name, arguments = _name_and_arguments(node)
    if name in _CONCATENATING and len(arguments) == 1:
        if ast.unparse(_unquoted(arguments[0])) != "str":
            raise UnknownType(f"`{ast.unparse(node)}` must hold str")
        return _array({"type": "string"}) | {
            "x-cog-array-type": "iterator",
            "x-cog-array-display": "concatenate",
        }
    if name in _ITERATORS and len(arguments) == 1:
        return _array(_element(arguments[0])) | {"x-cog-array-type": "iterator"}
    return _plain_output_schema(node, name, arguments)


def is_iterator(schema: Mapping[str, Any]) -> bool:
    """Tell whether an output schema is streamed element by element."""
    return schema.get("x-cog-array-type") == "iterator"


def _plain_output_schema(node: ast.expr, name: str, arguments: Sequence[ast.expr]) -> JsonSchema:
    if name in _LISTS and len(arguments) <= 1:
        return _array(_element(arguments[0]) if arguments else {"type": "object"})
    if name in _DICTS and len(arguments) in (0, 2):
        values = {"additionalProperties": output_schema(arguments[1])} if arguments else {}
        return {"type": "object"} | values
    if name in PRIMITIVES and not arguments:
        return dict(PRIMITIVES[name])
    raise UnknownType(f"`{ast.unparse(node)}` is not a type that Cog accepts for an output")


def _array(element: JsonSchema) -> JsonSchema:
    return {"type": "array", "items": element}


def _element(node: ast.expr) -> JsonSchema:
    schema = output_schema(node)
    if schema.get("type") == "array":
        raise UnknownType(f"`{ast.unparse(node)}`: a list or an iterator must not hold lists")
    return schema


def _union_schema(members: Sequence[ast.expr], typed_dicts: frozenset[str]) -> JsonSchema:
    """Write `T | None` as a nullable T and `T | U` as anyOf, as OpenAPI 3.0 has no null type."""
    variants = [member for member in members if not _is_none(member)]
    nullable = {"nullable": True} if len(variants) < len(members) else {}
    if not variants:
        raise UnknownType("a union needs at least one type beside None")
    schemas = [input_schema(variant, typed_dicts) for variant in variants]
    if len(schemas) == 1:
        return schemas[0] | nullable
    for variant, schema in zip(variants, schemas, strict=True):
        if ast.unparse(variant).rpartition(".")[2] in _NOT_IN_UNIONS or "anyOf" in schema or "nullable" in schema:
            raise UnknownType(f"`{ast.unparse(variant)}` is not accepted in a union")
    return {"anyOf": [schema | nullable for schema in schemas]} | nullable


def _union_members(node: ast.expr) -> list[ast.expr]:
    """Return the members of `A | B`, `Union[A, B]` or `Optional[A]`; an empty list for any other type."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*(_union_members(node.left) or [node.left]), *(_union_members(node.right) or [node.right])]
    if isinstance(node, ast.Subscript):
        name, arguments = _name_and_arguments(node)
        if name == "Union":
            return list(arguments)
        if name == "Optional" and len(arguments) == 1:
            return [arguments[0], ast.Constant(None)]
    return []


def _name_and_arguments(node: ast.expr) -> tuple[str, tuple[ast.expr, ...]]:
    """Split `typing.Dict[str, int]` into `Dict` and its arguments."""
    arguments: tuple[ast.expr, ...] = ()
    if isinstance(node, ast.Subscript):
        inside = node.slice
        arguments = tuple(inside.elts) if isinstance(inside, ast.Tuple) else (inside,)
        node = node.value
    if isinstance(node, ast.Name):
        return node.id, arguments
    if isinstance(node, ast.Attribute):
        return node.attr, arguments
    raise UnknownType(f"`{ast.unparse(node)}` is not a type that Cog accepts")


def _unquoted(node: ast.expr) -> ast.expr:
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        return node
    try:
        return _unquoted(ast.parse(node.value, mode="eval").body)
    except SyntaxError:
        raise UnknownType(f"`{ast.unparse(node)}` is not an annotation") from None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
