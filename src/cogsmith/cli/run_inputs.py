"""A prediction's inputs as words of a command line, of the types that the work directory's own `run` states."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cogsmith.client.images import data_uri
from cogsmith.errors import UserError
from cogsmith.workdir import signature

_FILE = "@"


def from_words(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """Return inputs from words `NAME=VALUE`, for the work directory `folder`.

    A value is taken as text or as JSON, by the input's type; `@FILE` is a file, or its text. A list takes several words
    of one name. Raises UserError with every word that has no meaning.
    """
    types = {one.name: one.type for one in signature.read((folder / "predict.py").read_text(encoding="utf-8")).inputs}
    inputs: dict[str, Any] = {}
    problems: list[str] = []
    for word in words:
        name, _, text = word.partition("=")
        try:
            _add(inputs, name, _value(name, text, _type_of(name, word, types)), types[name])
        except UserError as error:
            problems.append(error.message)
    if problems:
        raise UserError("\n".join(problems), fix="write NAME=VALUE, or NAME=@FILE; README.md there names the inputs")
    return inputs


def _type_of(name: str, word: str, types: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if "=" not in word:
        raise UserError(f"{word!r} has no value")
    if name not in types:
        near = difflib.get_close_matches(name, types, n=1)
        raise UserError(f"this model has no input {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return types[name]


def _add(inputs: dict[str, Any], name: str, value: Any, type_: Mapping[str, Any]) -> None:
    if type_["type"] == "array":
        inputs[name] = [*inputs.get(name, ()), *value]
    elif name in inputs:
        raise UserError(f"{name} is given twice")
    else:
        inputs[name] = value


def _value(name: str, text: str, type_: Mapping[str, Any]) -> Any:
    """Read the text of one word; for a list, a list of what it adds."""
    if type_["type"] == "array":
        if text.startswith("["):
            return _json(name, text, list)
        return [_value(name, text, type_["items"])]
    if text.startswith(_FILE):
        path = Path(text.removeprefix(_FILE))
        if type_.get("format") == "uri":
            return data_uri(path)
        text = _content(name, path)
    if type_["type"] == "string":
        return text
    kinds = {"integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,)}
    return _json(name, text, *kinds[type_["type"]])


def _content(name: str, path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: {path} cannot be read: {error}") from None


def _json(name: str, text: str, *kinds: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UserError(f"{name}={text} is no {' or '.join(kind.__name__ for kind in kinds)}")
    return value
