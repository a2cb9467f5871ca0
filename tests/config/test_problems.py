"""Mistakes in the file as a whole and in how keys go together; several at once."""

from __future__ import annotations

import pytest

# text, then the one problem it has: line, key, words of the message, words of the fix
FILES = [
    ("", None, None, "no models", "[models.NAME]"),
    ("[models]", None, None, "no models", "[models.NAME]"),
    ("models = 3", 1, "models", "expected a table, got 3", "[models.NAME]"),
    ("\n[[models]]\nx = 1", 2, "models", "expected a table, got a list", "[models.NAME]"),
    ("models.m = 'x'", 1, "models.m", "expected a table, got 'x'", "m.NAME = VALUE"),
    ("model.x = 1\nmodels.m.source = 'hf:a/b'", 1, "model", "unknown key", "write models"),
    ("format = 'hf'\nmodels.m.source = 'hf:a/b'", 1, "format", "unknown key", "put format below a [models.NAME]"),
    ("sorce = 'x'\nmodels.m.source = 'hf:a/b'", 1, "sorce", "unknown key", "put source below a [models.NAME]"),
    ("models.m.source = 'hf:a/b'\n[defaults]\nxyzzy = 1", 3, "defaults.xyzzy", "unknown", "known here: allow_patterns"),
    ("models.m.source = 'hf:a/b'\ndefaults.config.x = [{y = 07:32:00}]", 2, "defaults.config.x[0].y", "07:32", "text"),
]

# the same for the lines of a model, which begin at line 2
MODELS = [
    ("format = 'hf'", 1, "models.m", "names no weights", "huggingface.repo"),
    ("source = 'hf:a/b'\nhuggingface.repo = 'c/d'", 2, "models.m.source", "'hf:a/b'", "keep one"),
    ("source = 'hf:a/b'\nsource_cache = ''", 3, "models.m.source_cache", "names nothing", "leave the key out"),
    ("source = []", 2, "models.m.source", "names no weights", "source ="),
    ("source = ['hf:a/b', 'a b/c']", 2, "models.m.source[1]", "does not exist", "existing folder"),
    ("source = ['hf:a/b',\n'hf:a b/c']", 3, "models.m.source[1]", "'a b/c'", "ORG/REPO"),
    ("source = ['hf:a/b', 'hf:a/c']\nformat = 'hf'", 2, "models.m.source", "2 sources, and format 'hf'", "accessory"),
    ("source = ['hf:a/b', 'hf:a/c']\nformat = 'gguf'", 2, "models.m.source", "'gguf'", "the first is the base"),
    (
        "source = ['hf:a/b', 'hf:a/c']\nhuggingface.version = 'x'",
        3,
        "models.m.huggingface.version",
        "there are several sources",
        "hf:ORG/REPO@",
    ),
    ("source = 'hf:a/b'\nformat = 'hf'\ntokenizer = 'hf:a/t'", 4, "models.m.tokenizer", "'hf' takes none", "composer"),
    (
        "source = 'hf:a/b'\nllama_type = 'llama'\nformat = 'composer'",
        3,
        "models.m.llama_type",
        "'composer' takes none",
        '"accessory"',
    ),
    (
        "source = 'hf:a/b'\nformat = 'gguf'\nllama_config = 'config.toml'",
        4,
        "models.m.llama_config",
        "'gguf' takes none",
        '"accessory"',
    ),
    (
        "source = 'hf:a/b'\nconfig.device = 'cpu'\nconfig.device_map = 'auto'",
        3,
        "models.m.config.device",
        "config.device ('cpu') and config.device_map ('auto')",
        "keep one",
    ),
    (
        "source = 'hf:a/b'\nconfig.device = 'cuda:1'\ncog.gpu = false",
        3,
        "models.m.config.device",
        "the container no GPU",
        "change one",
    ),
    ("huggingface.repo = 'a--b/c d'", 2, "models.m.huggingface.repo", "'a--b/c d'", "ORG/REPO"),
    ("huggingface.repo = 'https://hf.co/a/b/tree/main'", 2, "models.m.huggingface.repo", "https", "write a/b:"),
    ("source = 'hf:a/b@x'\nhuggingface.version = 'y'", 3, "models.m.huggingface.version", "'x' in source", "keep one"),
    (
        "source = 'pypi:w==1'\nhuggingface.version = 'y'",
        3,
        "models.m.huggingface.version",
        "pypi: sources have none",
        "remove",
    ),
    (
        "source = 'config.toml'\nhuggingface.version = 'y'",
        3,
        "models.m.huggingface.version",
        "path: sources have none",
        "remove",
    ),
    ("source = '.'", 2, "models.m.source", "is around", "beside work/"),
    ("source = '..'", 2, "models.m.source", "is around", "beside work/"),
    ("source = 'hf:a/b'\nrequirements = ['a==1',\n2]", 4, "models.m.requirements[1]", "expected text, got 2", "quotes"),
    (
        "source = 'hf:a/b'\nconfig.load_in_4bit = true\nconfig.load_in_8bit = true",
        4,
        "models.m.config.load_in_8bit",
        "config.load_in_4bit and config.load_in_8bit are both true",
        "to false",
    ),
]


@pytest.mark.parametrize(("text", "line", "where", "message", "fix"), FILES)
def test_a_mistake_in_the_file(assert_refused, text, line, where, message, fix):
    assert_refused(text, line, where, message, fix)


@pytest.mark.parametrize(("text", "line", "where", "message", "fix"), MODELS)
def test_keys_that_do_not_go_together(assert_refused, text, line, where, message, fix):
    assert_refused(f"[models.m]\n{text}\n", line, where, message, fix)


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("../x", "'x'"),
        ("/x", "'x'"),
        (".x", "'x'"),
        ("x.", "'x'"),
        ("a b", "'a-b'"),
        ("a\x1b[31m", "'a-31m'"),
        ("Llama", "'llama'"),
        ("a/b", "'a-b'"),
        ("a\\b", "'a-b'"),
        ("é", None),
        ("", None),
        ("a" * 101, f"'{'a' * 80}…'"),
    ],
)
def test_a_bad_name_is_refused_and_a_good_one_proposed(problems_of, name, proposal):
    escaped = "".join(f"\\u{ord(char):04x}" for char in name)

    (problem,) = problems_of(f'\n[models."{escaped}"]\nsource = "hf:a/b"')

    assert problem.line == 2
    assert "is not a model name" in problem.message
    assert problem.message.isprintable()
    assert problem.fix.endswith(f", such as {proposal}" if proposal else "between them")


@pytest.mark.parametrize("name", ["a", "7b", "llama-3-1-8b--4bit", "a._-b", "a" * 100])
def test_a_good_name_is_taken(problems_of, name):
    assert problems_of(f'[models."{name}"]\nsource = "hf:a/b"') == ()


def test_names_that_differ_only_in_case(problems_of):
    (problem,) = problems_of("[models.Ab]\nsource = 'hf:a/b'\n[models.ab]\nsource = 'hf:a/b'")

    assert (problem.line, problem.where) == (1, "models.Ab")
    assert "'Ab' and 'ab' differ only in case" in problem.message


def test_a_name_with_a_dot_and_no_quotes(problems_of):
    unknown, _ = problems_of("[models.llama-3.1]\nsource = 'hf:a/b'")

    assert unknown.fix == """if 'llama-3.1' is the model's name, write [models."llama-3.1"]; else remove '1'"""


def test_all_problems_at_once_in_the_order_of_the_file(problems_of):
    text = """\
dest_prefix = "r8.im/YOURACCOUNT/"
[defaults]
cog.gpu = "yes"
[models.Good]
source = "ftp://x"
typo = 1
[models.b]
huggingface.version = "-"
config.load_in_4bit = true
config.load_in_8bit = true
"""
    assert [(problem.line, problem.where) for problem in problems_of(text)] == [
        (1, "dest_prefix"),
        (3, "defaults.cog.gpu"),
        (4, "models.Good"),
        (5, "models.Good.source"),
        (6, "models.Good.typo"),
        (7, "models.b"),
        (8, "models.b.huggingface.version"),
        (10, "models.b.config.load_in_8bit"),
    ]


def test_a_mistake_in_defaults_is_reported_once_and_there(problems_of):
    text = (
        "[defaults]\nconfig = {load_in_4bit = true, load_in_8bit = true}\nsource = 'no/where'\n[models.a]\n[models.b]\n"
    )

    assert [(problem.line, problem.where) for problem in problems_of(text)] == [
        (2, "defaults.config.load_in_8bit"),
        (3, "defaults.source"),
    ]


@pytest.mark.parametrize("link", [False, True])
def test_weights_in_the_folder_that_builds_write(assert_refused, tmp_path, link):
    (tmp_path / "work/m").mkdir(parents=True)
    (tmp_path / "link").symlink_to("work/m")
    source = "link" if link else "work/m"
    assert_refused(f"[models.m]\nsource = '{source}'\n", 2, "models.m.source", "is inside", "beside work/")
