"""Which line each key of a TOML text stands on.

tomli gives values without positions, so this reads the text a second time: only far enough to follow keys and
brackets (https://toml.io/en/v1.1.0), never to judge them. tomli has judged the text before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import tomli

KeyPath = tuple[str | int, ...]
"""The way to a value: table keys and, in arrays, 0-based indices."""

_TOKEN = re.compile(
    r'''
    (?P<blank>   [ \t\r]+ | \#[^\n]* )
  | (?P<string>  """ (?: \\. | [^"\\] | "(?!"") )*+ "{3,5}      # the last two quotes may be content
               | \'\'\' (?: [^'] | '(?!\'\') )*+ '{3,5}
               | " (?: \\. | [^"\\\n] )*+ "
               | ' [^'\n]*+ ' )
  | (?P<bare>    [A-Za-z0-9_-]+ )
  | (?P<mark>    . )                                             # brackets, = , . newline; other parts of scalars
    ''',
    re.VERBOSE | re.DOTALL,
)
_AFTER_VALUE = {",", "]", "}", "\n", ""}


class _Token(NamedTuple):
    """A piece of the text and the line it begins on. The last one is empty."""

    kind: str
    text: str
    line: int

    @property
    def key(self) -> str:
        """The key that the token spells, quotes and escapes resolved."""
        return next(iter(tomli.loads(f"{self.text}=0"))) if self.kind == "string" else self.text


@dataclass(frozen=True, slots=True)
class Positions:
    """1-based lines of the keys, tables and array items of one text."""

    lines: Mapping[KeyPath, int]

    def __contains__(self, path: KeyPath) -> bool:
        """Whether the text itself holds `path`."""
        return path in self.lines

    def line(self, path: KeyPath) -> int | None:
        """Return the line of `path`, else of the nearest thing around it that has one."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def scan(text: str) -> Positions:
    """Find the line of every key in `text`, which tomli must have accepted."""
    return Positions(_Scanner(text).scan())


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield _Token(match.lastgroup or "", match.group(), line)
        line += match.group().count("\n")
    yield _Token("end", "", line)


class _Scanner:
    """Walks the tokens once, noting where each key path is first seen."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._sizes: dict[KeyPath, int] = {}
        """Tables so far in each `[[array]]`."""

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while (token := self._skip("\n")).kind != "end":
            if token.text == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _skip(self, *marks: str) -> _Token:
        while self._peek().text in marks:
            self._at += 1
        return self._peek()

    def _header(self) -> KeyPath:
        self._next()
        is_array = self._peek().text == "["
        self._skip("[")
        path = self._key(())
        if is_array:
            path = self._append(path, self._peek().line)
        self._skip("]")
        return path

    def _append(self, array: KeyPath, line: int) -> KeyPath:
        size = self._sizes.get(array, 0)
        self._sizes[array] = size + 1
        self._lines[*array, size] = line
        return (*array, size)

    def _key(self, table: KeyPath) -> KeyPath:
        path = self._part(table)
        while self._peek().text == ".":
            self._next()
            if path in self._sizes:
                path = (*path, self._sizes[path] - 1)
            path = self._part(path)
        return path

    def _part(self, table: KeyPath) -> KeyPath:
        token = self._next()
        path = (*table, token.key)
        self._lines.setdefault(path, token.line)
        return path

    def _pair(self, table: KeyPath) -> None:
        path = self._key(table)
        self._skip("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        first = self._next()
        if first.text == "[":
            self._array(path)
        elif first.text == "{":
            self._inline_table(path)
        else:
            while self._peek().text not in _AFTER_VALUE:
                self._next()

    def _array(self, path: KeyPath) -> None:
        index = 0
        while (token := self._skip("\n", ",")).text != "]":
            self._lines[*path, index] = token.line
            self._value((*path, index))
            index += 1
        self._next()

    def _inline_table(self, path: KeyPath) -> None:
        while self._skip("\n", ",").text != "}":
            self._pair(path)
        self._next()
