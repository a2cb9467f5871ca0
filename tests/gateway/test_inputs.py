"""Inputs against a model's schema: the same verdict as jsonschema's, and the words of Replicate's own answers."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogsmith.gateway.inputs import check_body, check_input

from .stand_in import SCHEMA

# Made by Cog's own generator.
COGS = json.loads((Path(__file__).parent.parent / "workdir" / "cog_openapi_schema.json").read_text())
SCALARS = st.none() | st.booleans() | st.integers(-5, 130) | st.floats(-2, 130) | st.sampled_from(["", "webp", "gif"])
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.just("role"), SCALARS, max_size=1)


def is_valid(schema, inputs):
    """jsonschema's verdict, with inputs refused that the schema does not name."""
    components = json.loads(json.dumps(schema["components"]))
    components["schemas"]["Input"]["additionalProperties"] = False
    whole = {"$ref": "#/components/schemas/Input", "components": components}
    return jsonschema.Draft7Validator(whole).is_valid(inputs)


def inputs_of(schema):
    """Inputs of which each may be missing, right or wrong, and one that the model does not have."""
    names = schema["components"]["schemas"]["Input"]["properties"]
    return st.fixed_dictionaries({}, optional={name: VALUES for name in [*names, "stranger"]})


@given(inputs_of(COGS))
def test_the_verdict_is_jsonschemas_on_a_schema_that_cog_made(inputs):
    assert (check_input(COGS, inputs) == []) == is_valid(COGS, inputs)


@given(inputs_of(SCHEMA))
def test_the_verdict_is_jsonschemas_with_references_lists_and_ranges(inputs):
    assert (check_input(SCHEMA, inputs) == []) == is_valid(SCHEMA, inputs)


REPLICATES = {
    "components": {
        "schemas": {
            "Input": {
                "required": ["prompt"],
                "properties": {
                    "prompt": {"type": "string"},
                    "output_format": {"allOf": [{"$ref": "#/components/schemas/output_format"}]},
                    "n": {"type": "integer", "minimum": 1, "maximum": 4},
                    "words": {"type": "array", "items": {"type": "string"}},
                },
            },
            "output_format": {"type": "string", "enum": ["webp", "jpg"]},
        }
    }
}


@pytest.mark.parametrize(
    ("inputs", "fault"),
    [
        ({}, ("required", "input", "prompt is required")),
        (
            {"prompt": "", "output_format": "gif"},
            ("enum", "input.output_format", 'input.output_format must be one of the following: "webp", "jpg"'),
        ),
        ({"prompt": None}, ("invalid_type", "input.prompt", "Invalid type. Expected: string, given: null")),
        ({"prompt": "", "n": True}, ("invalid_type", "input.n", "Invalid type. Expected: integer, given: boolean")),
        ({"prompt": "", "n": 1.5}, ("invalid_type", "input.n", "Invalid type. Expected: integer, given: number")),
        ({"prompt": "", "n": 0}, ("number_gte", "input.n", "Must be greater than or equal to 1")),
        ({"prompt": "", "n": 5}, ("number_lte", "input.n", "Must be less than or equal to 4")),
        (
            {"prompt": "", "words": ["a", 2]},
            ("invalid_type", "input.words.1", "Invalid type. Expected: string, given: integer"),
        ),
        (
            {"prompt": "", "sead": 1},
            ("additional_property_not_allowed", "input", "Additional property sead is not allowed"),
        ),
    ],
)
def test_a_fault_is_said_as_replicate_says_it(inputs, fault):
    (found,) = check_input(REPLICATES, inputs)
    assert (found.type, found.field, found.description) == fault


def test_every_fault_is_found():
    faults = check_input(REPLICATES, {"n": 9, "words": [1, 2], "x": 0, "output_format": 3})
    assert sorted(fault.field for fault in faults) == [
        "input",
        "input",
        "input.n",
        "input.output_format",
        "input.words.0",
        "input.words.1",
    ]


def test_a_body_is_its_own_field():
    (fault,) = check_body({"properties": {}, "required": ["version"]}, {})
    assert str(fault) == "version is required"
