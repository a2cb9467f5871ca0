"""Key positions, against tomli and against texts whose lines are known by how they were made."""

from __future__ import annotations

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from cogsmith.config.positions import scan


def paths_in(value, path=()):
    """Yield the path of everything in a parsed document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths_in(item, (*path, key))


def test_each_form_of_key_has_its_line():
    text = '''\
# models.no = 1
dest_prefix = """
[not.a.header]
no = 1
""" # [nor.this]

[models.a]
source = 'x' # = "y"
config.deep."quoted.key" = 1
"tab\\tkey".'li"teral' = {one = 1, two = [
  {three = "}"},
  "]",
]}

[[list]]
x = 1
[[list]]
x = 2
[list.sub]
y = 3
[[list.sub.deeper]]
[[list.sub.deeper]]
z = 4
[models]
b.source = "z"
'''
    assert dict(scan(text).lines) == {
        ("dest_prefix",): 2,
        ("models",): 7,
        ("models", "a"): 7,
        ("models", "a", "source"): 8,
        ("models", "a", "config"): 9,
        ("models", "a", "config", "deep"): 9,
        ("models", "a", "config", "deep", "quoted.key"): 9,
        ("models", "a", "tab\tkey"): 10,
        ("models", "a", "tab\tkey", 'li"teral'): 10,
        ("models", "a", "tab\tkey", 'li"teral', "one"): 10,
        ("models", "a", "tab\tkey", 'li"teral', "two"): 10,
        ("models", "a", "tab\tkey", 'li"teral', "two", 0): 11,
        ("models", "a", "tab\tkey", 'li"teral', "two", 0, "three"): 11,
        ("models", "a", "tab\tkey", 'li"teral', "two", 1): 12,
        ("list",): 15,
        ("list", 0): 15,
        ("list", 0, "x"): 16,
        ("list", 1): 17,
        ("list", 1, "x"): 18,
        ("list", 1, "sub"): 19,
        ("list", 1, "sub", "y"): 20,
        ("list", 1, "sub", "deeper"): 21,
        ("list", 1, "sub", "deeper", 0): 21,
        ("list", 1, "sub", "deeper", 1): 22,
        ("list", 1, "sub", "deeper", 1, "z"): 23,
        ("models", "b"): 25,
        ("models", "b", "source"): 25,
    }


@pytest.mark.parametrize(
    "string",
    ['""', "''", '"\\""', "'\\'", '""""""', '"""x""""', '"""x"""""', '"""\\""""', "''''''", "'''x''''", "'''x'''''"],
)
def test_a_string_ends_where_tomli_says(string):
    text = f"""a = [{string}, "]'", ']"']\nb = 1"""

    assert len(tomli.loads(text)["a"]) == 3
    assert dict(scan(text).lines) == {("a",): 1, ("a", 0): 1, ("a", 1): 1, ("a", 2): 1, ("b",): 2}


def test_an_unknown_path_has_the_line_of_what_is_around_it():
    positions = scan("x = 1\n[models.a]\nlimits.y = 2\n")

    assert positions.line(("models", "a", "limits", "no", 3)) == 3
    assert positions.line(("models", "a", "no")) == 2
    assert positions.line(("no",)) is None
    assert positions.line(()) is None


# --- random texts: whatever tomli accepts is located, on a line where the key stands ---------------------------

PART = st.sampled_from(["a", "b", "k-1", "1", "'q.q'", '"d d"', '""'])
KEY = st.lists(PART, min_size=1, max_size=3).map(" . ".join)
SCALAR = st.sampled_from(
    [
        *["1.5", "true", "1979-05-27 07:32:00Z", "-inf", '"[a]\\""', "'{'"],
        *['"""a""""', "'''b''''", "'''x\n'y''z'''''", '"""\n\\"""q"" = 1\n"""', '"""a"""""', "''"],
    ]
)
GAP = st.sampled_from(["", " ", "\n", "\r\n", " # ] }\n"])


def containers(inner):
    item = st.tuples(GAP, inner, GAP).map("".join)
    pair = st.tuples(GAP, KEY, st.just(" = "), inner, GAP).map("".join)
    return st.one_of(
        st.lists(item, max_size=3).map(lambda items: f"[{','.join(items)}\n]"),
        st.lists(pair, max_size=3).map(lambda pairs: "{" + ",".join(pairs) + "}"),
    )


VALUE = st.recursive(SCALAR, containers, max_leaves=5)
STATEMENT = st.one_of(
    KEY.map("[{}]".format),
    KEY.map("[[{}]] # x = [".format),
    st.tuples(KEY, VALUE).map("=".join),
    st.just("# [c"),
)


def accepted(statements):
    """Join the statements, leaving out those that tomli refuses after the ones before them."""
    text = ""
    for statement in statements:
        try:
            tomli.loads(text + statement)
        except tomli.TOMLDecodeError:
            continue
        text += statement + "\n"
    return text


@settings(deadline=None)  # other work on the machine is no failure
@given(st.lists(STATEMENT, max_size=12).map(accepted))
def test_whatever_tomli_accepts_is_located_where_its_key_stands(text):
    positions = scan(text)

    lines = text.split("\n")
    for path in paths_in(tomli.loads(text)):
        assert path in positions
        if isinstance(path[-1], str):
            assert path[-1] in lines[positions.line(path) - 1]


# --- made texts: the lines are known by construction ------------------------------------------------------------

KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=6)
SCALARS = [
    "1",
    "'[a]'",
    '"#\\" = {"',
    '"""\n[x]\ny = 1\n"""',
    "'''\n'''",
    "[\n1,\n[2, # ]\n],\n]",
    "{x = 1,\ny = {}}",
    "nan",
]


def quoted(key):
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(deadline=None)  # other work on the machine is no failure
@given(st.dictionaries(KEYS, st.dictionaries(KEYS, st.sampled_from(SCALARS), max_size=4), max_size=4), st.booleans())
def test_tables_made_line_by_line(tables, with_headers):
    text, expected = "", {}
    for table, pairs in tables.items():
        if with_headers:
            expected[table,] = text.count("\n") + 1
            text += f"[ {quoted(table)} ] # = [\n"
        for key, value in pairs.items():
            line = text.count("\n") + 1
            expected.setdefault((table,), line)
            expected[table, key] = line
            text += f"{'' if with_headers else quoted(table) + ' . '}{quoted(key)} = {value}\n\n"

    positions = scan(text)

    assert set(paths_in(tomli.loads(text))) == set(positions.lines)
    assert {path: positions.line(path) for path in expected} == expected
