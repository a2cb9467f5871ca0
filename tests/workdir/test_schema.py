"""The OpenAPI document against one that Cog's own generator made, and against the format by hand."""

from __future__ import annotations

import json
from pathlib import Path

from cogsmith.workdir import schema, signature

# Made by Cog's generator from the signature below.
COGS_OWN = Path(__file__).with_name("cog_openapi_schema.json")


def document(parameters: str, decorators: str = "") -> dict:
    text = f"class Predictor:\n    {decorators}\n    def run(self, {parameters}) -> ConcatenateIterator[str]: ..."
    return schema.document(signature.read(text), "dev")


def properties(parameters: str) -> dict:
    return document(parameters)["components"]["schemas"]["Input"]


def test_same_signature_same_document_as_cog():
    made = document('ops: str = Input(description="JSON batch of ops")', "@cog.streaming")
    assert made == json.loads(COGS_OWN.read_text())


def test_without_streaming_there_is_no_mark():
    assert "x-cog-streaming" not in document("x: str")["paths"]["/predictions"]["post"]


def test_constraints_defaults_and_order():
    found = properties(
        'max_tokens: int = Input(default=128, ge=1, le=4096, description="d"), '
        'top_p: float = Input(default=1.0, le=0.5e1), stop: str = Input(default="", min_length=0, max_length=9), '
        'code: str = Input(default="a", regex="[a-z]"), image: Path = Input(default=None, accept="image/*")'
    )
    assert found["properties"] == {
        "max_tokens": {
            "title": "Max Tokens",
            "type": "integer",
            "default": 128,
            "minimum": 1,
            "maximum": 4096,
            "description": "d",
            "x-order": 0,
        },
        "top_p": {"title": "Top P", "type": "number", "default": 1, "maximum": 5, "x-order": 1},
        "stop": {
            "title": "Stop",
            "type": "string",
            "default": "",
            "minLength": 0,
            "maxLength": 9,
            "x-order": 2,
        },
        "code": {"title": "Code", "type": "string", "default": "a", "pattern": "[a-z]", "x-order": 3},
        "image": {"title": "Image", "type": "string", "format": "uri", "x-cog-accept": "image/*", "x-order": 4},
    }
    assert found["required"] == ["image"]


def test_optional_inputs_are_nullable_and_not_required():
    found = properties("a: int | None, b: int | None = None, c: Secret = Input(default=None), d: list[int] = []")
    assert "required" not in found
    assert found["properties"]["a"] == {"title": "A", "type": "integer", "nullable": True, "x-order": 0}
    assert found["properties"]["b"]["default"] is None
    assert found["properties"]["c"]["nullable"] is True
    assert found["properties"]["d"]["default"] == []


def test_choices_are_a_schema_of_their_own():
    schemas = document('size: str = Input(default="s", choices=["s", "m"])')["components"]["schemas"]
    assert schemas["size"] == {
        "title": "size",
        "description": "An enumeration.",
        "enum": ["s", "m"],
        "type": "string",
    }
    assert schemas["Input"]["properties"]["size"] == {
        "allOf": [{"$ref": "#/components/schemas/size"}],
        "default": "s",
        "x-order": 0,
    }


def test_a_union_without_default_is_required():
    assert properties("a: int | str | None")["required"] == ["a"]
