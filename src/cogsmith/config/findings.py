"""What is wrong in config.toml, and how it is worded: before lines are known, and after."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from cogsmith.config.access_tokens import redact
from cogsmith.config.positions import KeyPath, Positions
from cogsmith.errors import Problem

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem at one key path."""

    path: KeyPath
    message: str
    fix: str


class Refusal(ValueError):
    """A value that breaks a rule. pydantic carries it from a field's validator to the findings."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


def problems(findings: Iterable[Finding], positions: Positions) -> list[Problem]:
    """Give each finding its line, drop repetitions, and put them in the file's order."""
    found = [_problem(finding, positions) for finding in dict.fromkeys(findings)]
    return sorted(found, key=lambda problem: problem.line or 0)


def _problem(finding: Finding, positions: Positions) -> Problem:
    return Problem(
        message=redact(finding.message),
        fix=redact(finding.fix),
        where=dotted(finding.path) or None,
        line=positions.line(finding.path),
    )


def dotted(path: KeyPath) -> str:
    """Spell a key path as TOML does: `models."llama-3.1".requirements[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + _key(part)
    return redact(text)


def _key(part: str) -> str:
    return part if _BARE_KEY.fullmatch(part) else '"' + show(part)[1:-1] + '"'


def show(value: Any) -> str:
    """Spell a value for a message: short, on one line, without access tokens."""
    match value:
        case dict():
            return "a table"
        case list():
            return "a list"
        case bool():
            return "true" if value else "false"
        case str():
            # Redacted before it is cut: half a token would not be recognised any more.
            text = redact(value)
            return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
        case date() | time():
            return value.isoformat()
        case _:
            # hex, as Python refuses to spell huge integers in decimal.
            return hex(value)[:_SHOWN] if isinstance(value, int) and abs(value) >= 2**64 else str(value)
