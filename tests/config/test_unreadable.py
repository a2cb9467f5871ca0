"""Files that cannot be read at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cogsmith.config import load
from cogsmith.errors import ConfigError


def test_a_missing_file_says_what_to_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="no such file") as raised:
        load(Path("config.toml"))

    assert raised.value.problems[0].fix == "cp config.toml.example config.toml"


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=os.strerror(errno.EISDIR)):
        load(tmp_path)


def test_a_file_that_is_not_utf_8(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"[models.m]\nsource = 'caf\xe9'\n")

    with pytest.raises(ConfigError) as raised:
        load(path)

    (problem,) = raised.value.problems
    assert (problem.line, problem.message, problem.fix) == (2, "the text is not UTF-8", "save the file as UTF-8")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\nsource = hf:a/b\n", 2, "invalid value"),
        ("[models.m]\na = 1\na = 2\n", 3, "overwrite"),
        ("[models.m\n", 1, "expected ']'"),
        (f"\nx = {'1' * 5000}\n", None, "cannot be read"),
        (f"x = {'[' * 70}{']' * 70}\n", None, "nested more than 64 deep"),
        (f"{'a.' * 5000}b = 1\n", None, "nested more than 64 deep"),
    ],
    ids=["bare text", "twice", "open header", "huge number", "deep array", "deep key"],
)
def test_text_that_is_not_toml(problems_of, text, line, message):
    (problem,) = problems_of(text)

    assert problem.line == line
    assert message in problem.message
    assert problem.fix
