"""Options that only `from_pretrained` knows: `--dtype float16 --trust_remote_code True`."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Collection, Sequence
from typing import Any

_ALMOST = 0.75


def split(words: Sequence[str], known: Collection[str]) -> tuple[list[str], dict[str, Any], list[str]]:
    """Part what stands on a command line into names, arguments for the model, and everything that is wrong.

    An argument is `--KEY VALUE` or `--KEY=VALUE`; the value is a Python literal, or else a text. `known` are the names
    of the command's own options: what is spelled almost like one is taken for a slip, not for the model's.
    """
    names: list[str] = []
    arguments: dict[str, Any] = {}
    problems: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            names.append(word)
            continue
        key, has_value, text = word.lstrip("-").partition("=")
        if not has_value and (not rest or rest[0].startswith("--")):
            problems.append(f"{word} has no value: write {word} VALUE")
            continue
        value = _literal(text if has_value else rest.pop(0))
        problems += _faults(word, key, value, arguments, known)
        arguments[key] = value
    return names, arguments, problems


def _faults(word: str, key: str, value: Any, before: Collection[str], known: Collection[str]) -> list[str]:
    """What is wrong with one argument."""
    faults = []
    if not word.startswith("--") or not key.isidentifier():
        faults.append(f"{word} is no option of this command, and no argument that a model could take")
    if key in before:
        faults.append(f"--{key} is given twice")
    if nearest := difflib.get_close_matches(key, known, n=1, cutoff=_ALMOST):
        faults.append(f"--{key} is no option: did you mean --{nearest[0]}?")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        faults.append(f"--{key} is {value!r}: give a text, a number, True, False, None, a list or a dictionary")
    return faults


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
