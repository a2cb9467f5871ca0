"""Options of `serve` that are the model's."""

import pytest

from cogsmith.cli.model_args import split

KNOWN = ["port", "host", "cuda", "max-queue"]


def test_names_and_arguments_may_stand_in_any_order():
    words = ["one", "--dtype", "float16", "two", "--trust_remote_code", "True", "--max_memory={0: 1}", "three"]
    names, arguments, problems = split(words, KNOWN)
    assert names == ["one", "two", "three"]
    assert arguments == {"dtype": "float16", "trust_remote_code": True, "max_memory": {0: 1}}
    assert arguments["trust_remote_code"] is True
    assert problems == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("None", None),
        ("3", 3),
        ("-0.5", -0.5),
        ("'quoted'", "quoted"),
        ("[1, 'a']", [1, "a"]),
        ("{'a': 1}", {"a": 1}),
        ("true", "true"),
        ("org/name", "org/name"),
        ("float16", "float16"),
        ("", ""),
        ("os.system('x')", "os.system('x')"),
    ],
)
def test_a_value_is_a_python_literal_or_else_a_text(text, value):
    assert split(["--key", text], KNOWN)[1] == {"key": value}
    assert split([f"--key={text}"], KNOWN)[1] == {"key": value}


def test_every_fault_is_told_at_once():
    words = ["--a", "1", "--a", "2", "--prot", "80", "--max_queue", "3", "-x", "1", "--2b", "1", "--s", "{1}", "--end"]
    problems = "\n".join(split(words, KNOWN)[2])
    for fault in (
        "--a is given twice",
        "did you mean --port?",
        "did you mean --max-queue?",
        "-x is no option",
        "--2b is no option",
        "--s is {1}",
        "--end has no value",
    ):
        assert fault in problems
    assert problems.count("\n") == 6


@pytest.mark.parametrize(
    "key", ["max_memory", "device_map", "dtype", "revision", "attn_implementation", "load_in_4bit"]
)
def test_what_from_pretrained_takes_is_not_mistaken_for_a_slip(key):
    known = [*KNOWN, "token", "lazy", "max-body", "keep", "rate-limit", "chaos", "names", "help"]
    assert split([f"--{key}", "1"], known)[2] == []
