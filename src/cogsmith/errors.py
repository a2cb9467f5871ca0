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
    │   ├── ServeError            the Cog server did not start or did not answer
    │   ├── UnknownResource       the gateway has no such model, version, prediction, …
    │   └── Overloaded            the gateway's queue is full; later it may take more
    │       └── ShuttingDown      the gateway is about to end
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


class UnknownResource(UserError):
    """The gateway has no such model, version, prediction, deployment or file."""


class Overloaded(UserError):
    """The gateway's queue is full: it takes no more predictions now, and may later."""


class ShuttingDown(Overloaded):
    """The gateway is about to end: it takes no more predictions."""


class ClientError(UserError):
    """A call of a served model did not succeed."""


class EndpointError(ClientError):
    """An endpoint, or a setting of the client, has no meaning."""


class AuthenticationError(ClientError):
    """There is no token, or the one there is was not accepted."""


class NotFound(ClientError):
    """There is no such model, version, deployment or prediction, or it is not for this token."""


class RequestRejected(ClientError):
    """The request cannot be served as it is; sending it again changes nothing."""


class RateLimited(ClientError):
    """Too many requests. `retry_after` is when the server said to come again, in seconds from then, if it did."""

    def __init__(self, message: str, *, fix: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, fix=fix)
        self.retry_after = retry_after


class ServiceUnavailable(ClientError):
    """The server cannot be reached, or fails. `may_have_run`: the request may have had its effect all the same.

    `retry_after` is when the server said to come again, in seconds from then, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        fix: str | None = None,
        may_have_run: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.may_have_run = may_have_run
        self.retry_after = retry_after


class UnsupportedByServer(ClientError):
    """The server speaks an LMTP that cannot do what was asked."""


class TokenizerMismatch(ClientError):
    """The client's tokenizer is not the server's: the same ids mean different texts."""


class OperationFailed(ClientError):
    """The server's error for one operation. Others of the same prediction go on."""


class PredictionFailed(ClientError):
    """The prediction, with all its operations, ended as failed."""


class PredictionCanceled(ClientError):
    """The prediction was ended by somebody else: from another client, or by a limit of the host."""


class StreamBroken(ClientError):
    """A stream was cut, and cannot be continued without changing it. `num_tokens` had come until then."""

    def __init__(self, message: str, *, fix: str | None = None, num_tokens: int = 0) -> None:
        super().__init__(message, fix=fix)
        self.num_tokens = num_tokens


class DeadlineExceeded(ClientError):
    """The time given was not enough. What had come until then was delivered."""


class ProtocolError(CogsmithError):
    """The peer sent something that is not LMTP."""


class RequestError(CogsmithError):
    """An operation the engine refuses. It ends its own stream and no other."""


class InternalError(CogsmithError):
    """A fault of ours: please report it."""
