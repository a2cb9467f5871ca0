"""Reading run() as Cog does."""

from __future__ import annotations

import pytest

from cogsmith.errors import WorkdirError
from cogsmith.workdir import signature

HEAD = """import cog
from typing import Any, Optional, TypedDict, Union
from cog import ConcatenateIterator, Input, Path, Secret
from cog import Input as I
from cog import streaming as live

LIMIT = 7
CHOICES = ["a", "b"]

class Turn(TypedDict):
    role: str

class Predictor:
"""


def read(parameters: str = "", decorators: str = "", returns: str = "str", prefix: str = "async "):
    lines = [f"    {line}" for line in decorators.split()]
    return signature.read(HEAD + "\n".join([*lines, f"    {prefix}def run(self, {parameters}) -> {returns}: ..."]))


def problems(*args: str, **kwargs: str) -> list[str]:
    with pytest.raises(WorkdirError) as caught:
        read(*args, **kwargs)
    return [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("str", {"type": "string"}),
        ("'int'", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("Path", {"type": "string", "format": "uri"}),
        ("cog.Path", {"type": "string", "format": "uri"}),
        ("Secret", {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True}),
        ("dict", {"type": "object"}),
        ("dict[str, int]", {"type": "object"}),
        ("Any", {"type": "object"}),
        ("Turn", {"type": "object"}),
        ("list[int]", {"type": "array", "items": {"type": "integer"}}),
        ("list[dict]", {"type": "array", "items": {"type": "object"}}),
        ("int | None", {"type": "integer", "nullable": True}),
        ("Optional[list[int]]", {"type": "array", "items": {"type": "integer"}, "nullable": True}),
        ("Union[int, str]", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (
            "int | str | None",
            {
                "anyOf": [{"type": "integer", "nullable": True}, {"type": "string", "nullable": True}],
                "nullable": True,
            },
        ),
    ],
)
def test_input_types(annotation, schema):
    assert dict(read(f"x: {annotation}").inputs[0].type) == schema


@pytest.mark.parametrize(
    "annotation",
    [
        "list[list[int]]",
        "list",
        "list[int | None]",
        "Literal['a']",
        "Unknown",
        "set[int]",
        "tuple[int]",
        "None",
        "int | Path",
        "'not valid'",
        "3",
        "Callable[[], int]",
    ],
)
def test_input_types_that_cog_rejects(annotation):
    assert len(problems(f"x: {annotation}")) == 1


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("str", {"type": "string"}),
        ("dict", {"type": "object"}),
        ("dict[str, list[int]]", None),
        ("list[str]", {"type": "array", "items": {"type": "string"}}),
        ("Iterator[dict]", {"type": "array", "items": {"type": "object"}, "x-cog-array-type": "iterator"}),
        (
            "ConcatenateIterator[str]",
            {
                "type": "array",
                "items": {"type": "string"},
                "x-cog-array-type": "iterator",
                "x-cog-array-display": "concatenate",
            },
        ),
    ],
)
def test_output_types(annotation, schema):
    expected = schema or {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "integer"}},
    }
    assert dict(read(returns=annotation).output) == expected


@pytest.mark.parametrize(
    "annotation",
    ["None", "str | None", "Optional[str]", "ConcatenateIterator[int]", "Generator[str]", "list[list[int]]", "Model"],
)
def test_output_types_that_cog_rejects(annotation):
    assert len(problems(returns=annotation)) == 1


def test_inputs_with_all_that_input_says():
    first, second, third, fourth = read(
        'a: int = Input(default=5, ge=0, le=LIMIT_, description="how many"), '.replace("LIMIT_", "7")
        + 'b: str = I(default="a", choices=CHOICES), '
        + 'c: str = Input(default="xy", min_length=1, max_length=3, regex=r"\\w+", deprecated=True), '
        + "d: int = LIMIT"
    ).inputs
    assert (first.default, dict(first.keywords)) == (5, {"minimum": 0, "maximum": 7, "description": "how many"})
    assert (second.default, second.choices) == ("a", ("a", "b"))
    assert dict(third.keywords) == {"minLength": 1, "maxLength": 3, "pattern": r"\w+", "deprecated": True}
    assert (fourth.has_default, fourth.default) == (True, 7)


def test_how_it_is_served():
    run = read(decorators="@cog.concurrent(max=32) @live", returns="ConcatenateIterator[str]")
    assert (run.concurrency, run.streaming, run.is_async) == (32, True, True)
    plain = read(prefix="")
    assert (plain.concurrency, plain.streaming, plain.is_async) == (1, False, False)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("x", "no type annotation"),
        ("x=3", "no type annotation"),
        ("*x: int", "*args"),
        ("**x: int", "*args"),
        ("*, x: int", "keyword-only"),
        ("x: int = cog.Input(default=1)", "not Input()"),
        ("x: int = Field(default=1)", "not Input()"),
        ("x: int = Input(1)", "positional default"),
        ("x: int = Input(default_factory=int)", "`default_factory`"),
        ("x: int = Input(default=2**10)", "computed"),
        ("x: int = Input(default=0x10)", "plain decimal"),
        ("x: int = Input(default=1_000)", "plain decimal"),
        ("x: int = int('3')", "not Input()"),
        ("x: int = UNKNOWN", "computed"),
        ("x: int = Input(default=1, le=LIMIT)", "computed"),
        ("x: str = Input(default='', description=f'a{1}')", "computed"),
        ("x: str = Input(default='', description='a' 'b')", "differently"),
        ("x: str = Input(default='', description=('a'))", "parentheses"),
        ("x: str = Input(default='', description='a\\n')", "differently"),
        ("x: str = Input(default='', description='''a\nb''')", "several lines"),
        ("x: str = Input(default='a', choices=sorted(CHOICES))", "computed"),
        ("x: str = Input(default='a', choices=['a'])", "at least 2"),
        ("x: float = Input(default=1.0, choices=[1.0, 2.0])", "choices are for"),
        ("x: str = Input(default='c', choices=CHOICES)", "breaks its own"),
        ("x: str = Input(default='', ge=1)", "for numbers"),
        ("x: int = Input(default=1, max_length=1)", "for strings"),
        ("x: int = Input(default=0, ge=1)", "breaks its own"),
        ("x: int = Input(default='a')", "not of the input's type"),
        ("x: list[int] = Input(default=3)", "not of the input's type"),
        ("x: int | str = Input(default=3, ge=1)", "for numbers"),
        ("x: int = Input(default=1, ge='a')", "must be a number"),
    ],
)
def test_inputs_that_cog_drops_or_refuses(parameters, words):
    (message,) = problems(parameters)
    assert words in message


@pytest.mark.parametrize(
    ("decorators", "words"),
    [
        ("@cog.concurrent(max=LIMIT)", "integer literal"),
        ("@cog.concurrent(max=0)", "integer literal"),
        ("@cog.concurrent(max='3')", "integer literal"),
        ("@cog.concurrent(3)", "integer literal"),
        ("@functools.cache", "decorator"),
        ("@retry(3)", "decorator"),
        ("@live", "returns no iterator"),
    ],
)
def test_decorators_that_cog_refuses(decorators, words):
    (message,) = problems(decorators=decorators)
    assert words in message


def test_concurrency_needs_async():
    assert "plain def" in problems(decorators="@cog.concurrent(max=2)", prefix="")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class Predictor: run = other", "no literal run"),
        ("class Other: ...\nPredictor = Other", "no class Predictor"),
        ("if True:\n    class Predictor:\n        def run(self) -> str: ...", "no class Predictor"),
        ("class Predictor:\n    def run(self): ...", "no return annotation"),
        ("class Predictor:\n    def run() -> str: ...", "not self"),
        ("class Predictor(", "not valid Python"),
    ],
)
def test_what_cog_cannot_find(text, words):
    with pytest.raises(WorkdirError) as caught:
        signature.read(text)
    assert words in caught.value.problems[0].message


def test_every_problem_is_reported_with_its_line():
    with pytest.raises(WorkdirError) as caught:
        signature.read("class Predictor:\n    def run(self,\n        a: Unknown,\n        b,\n    ): ...")
    assert [problem.line for problem in caught.value.problems] == [3, 4, 2]
    assert all(problem.fix for problem in caught.value.problems)
