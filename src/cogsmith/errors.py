"""Every error this project raises on purpose.

    CogsmithError                 has a message and, where there is one, the fix
    ├── UserError                 the caller can mend it                          exit code 1
    │   ├── ConfigError           config.toml: every problem at once
    │   ├── SourceError           weights: missing, gated, unsafe, unreadable
    │   ├── ConversionError       weights that could not be turned into a checkpoint folder
    │   ├── WorkdirError          a work directory that breaks Cog's or our rules
    │   ├── LockDrift             `--frozen`, and the build would differ from the lock
    │   ├── MissingExtra          an optional extra is needed and not installed
    │   ├── MissingPackages       a work directory needs packages that are not installed
    │   └── ServeError            the Cog server did not start or did not answer
    ├── ProtocolError             the peer broke LMTP
    ├── RequestError              an operation the engine refuses; ends its own stream only
    └── InternalError             a fault of ours                                 exit code 3

Exceptions never print. The command line maps them to stderr and an exit code in one place.
This module travels into every work directory, so it imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class CogsmithError(Exception):
    """Base of all: `message` says what and the value, `fix` what to do about it."""

    exit_code = 3

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class UserError(CogsmithError):
    """Something the caller can mend."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file: `where` it is (a key, a path), on which `line` (1-based)."""

    message: str
    fix: str | None = None
    where: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        subject = f"{self.where}: " if self.where else ""
        remedy = f"\n    fix: {self.fix}" if self.fix else ""
        return f"{place}{subject}{self.message}{remedy}"


class ProblemsError(UserError):
    """Several problems of one file or folder, all reported together."""

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([f"{subject}: {count}", *(f"  {problem}" for problem in problems)]))


class ConfigError(ProblemsError):
    """config.toml cannot be used as it is."""


class WorkdirError(ProblemsError):
    """A work directory breaks a rule of Cog's or ours."""


class SourceError(UserError):
    """Weights that are missing, gated, unsafe or unreadable."""


class ConversionError(UserError):
    """Weights that could not be turned into a checkpoint folder, or came out different."""


class LockDrift(UserError):
    """`--frozen` was asked for, and the build would differ from the lock."""


class MissingExtra(UserError):
    """A package of an optional extra is needed and not installed."""

    def __init__(self, extra: str, why: str) -> None:
        super().__init__(f"{why} needs packages that are not installed", fix=f'pip install "cogsmith[{extra}]"')
        self.extra = extra


class MissingPackages(UserError):
    """Packages that a work directory names are not installed. `requirements` are as pip takes them."""

    def __init__(self, requirements: Sequence[str], why: str) -> None:
        super().__init__(f"{why} needs packages that are not installed", fix=f"pip install {' '.join(requirements)}")
        self.requirements = tuple(requirements)


class ServeError(UserError):
    """The Cog server did not start, or did not answer as it should."""


class ProtocolError(CogsmithError):
    """The peer sent something that is not LMTP."""


class RequestError(CogsmithError):
    """An operation the engine refuses. It ends its own stream and no other."""


class InternalError(CogsmithError):
    """A fault of ours: please report it."""
