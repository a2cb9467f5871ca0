"""The text of config.toml as data: values, lines, and `[defaults]` merged under each model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tomli

from cogsmith.config import positions
from cogsmith.config.access_tokens import redact
from cogsmith.config.positions import KeyPath, Positions
from cogsmith.errors import ConfigError, Problem

MAX_DEPTH = 64
"""Tables and arrays within each other. Real files have five or so; the bound keeps recursion safe."""


@dataclass(frozen=True, slots=True)
class Section:
    """One model's keys, with `[defaults]` merged under them."""

    name: str
    values: Mapping[str, Any]
    positions: Positions

    def get(self, *keys: str) -> Any:
        """Return the value at `keys`; None where there is none, or something else than a table is in the way."""
        value: Any = self.values
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def origin(self, *keys: str) -> KeyPath:
        """Return the path in the file that the value at `keys` came from, else the section's own."""
        for path in (("models", self.name, *keys), ("defaults", *keys)):
            if path in self.positions:
                return path
        return ("models", self.name)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed config.toml, not checked yet."""

    values: Mapping[str, Any]
    positions: Positions

    def sections(self) -> Iterator[Section]:
        """Yield every model that is a table at all, defaults merged in."""
        models, defaults = self.values.get("models"), self.values.get("defaults")
        for name, own in models.items() if isinstance(models, dict) else ():
            if isinstance(own, dict):
                values = merge(_applicable(defaults, own), own) if isinstance(defaults, dict) else own
                yield Section(name, values, self.positions)


def parse(text: str, subject: str) -> Document:
    """Read TOML. Raises ConfigError, which names `subject`, with the line where reading stopped."""
    try:
        values = tomli.loads(text)
    except RecursionError:
        raise _too_deep(subject) from None
    except ValueError as error:
        raise ConfigError(subject, [_syntax_problem(error)]) from None
    if _depth(values) > MAX_DEPTH:
        raise _too_deep(subject)
    return Document(values, positions.scan(text))


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` on `under`: its values win, tables in both are merged key by key, lists are not."""
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], dict) and isinstance(over[key], dict):
            merged[key] = merge(under[key], over[key])
    return merged


def _applicable(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the default weights, in either spelling and with their revision, where a model names its own."""
    dropped: set[str] = set()
    if "source" in own:
        dropped = {"huggingface"}
    elif _names_repo(own):
        dropped = {"source", "huggingface"} if _names_repo(defaults) else {"source"}
    return {key: value for key, value in defaults.items() if key not in dropped}


def _names_repo(table: Mapping[str, Any]) -> bool:
    hub = table.get("huggingface")
    return isinstance(hub, dict) and "repo" in hub


def _syntax_problem(error: ValueError) -> Problem:
    # A number that Python refuses to read is a plain ValueError, without a line.
    message = getattr(error, "msg", None) or "a value cannot be read"
    column = getattr(error, "colno", None)
    return Problem(
        f"not TOML: {redact(message[:1].lower() + message[1:])}" + (f", at column {column}" if column else ""),
        fix="mend this line; text values stand in quotes, and https://toml.io shows how everything is written",
        line=getattr(error, "lineno", None),
    )


def _too_deep(subject: str) -> ConfigError:
    message = f"tables or arrays are nested more than {MAX_DEPTH} deep"
    return ConfigError(subject, [Problem(message, fix="nest them less deeply")])


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [child for parent in level for child in _children(parent)]:
        depth += 1
    return depth


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
