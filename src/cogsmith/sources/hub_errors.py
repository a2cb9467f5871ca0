"""What goes wrong at the Hugging Face Hub, in the user's words.

The one place where exceptions of huggingface_hub and httpx2 become ours. A message never repeats what a server
said beyond its status, because that may hold a signed address or a token.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cogsmith.errors import SourceError

FOREIGN_ERRORS = (HfHubHTTPError, httpx2.HTTPError, HFValidationError, OSError)
"""What a call of huggingface_hub may raise; `OfflineModeIsEnabled` and its missing-file errors are OSErrors."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of which Hub. `known_revisions` are some that exist, for a missing one."""

    repo: str
    revision: str
    endpoint: str
    cache: Path
    token_sent: bool
    known_revisions: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """The repository's web page."""
        return f"{self.endpoint}/{self.repo}"

    @property
    def account(self) -> str:
        """Whether the Hub could know who was asking."""
        return "the token in HF_TOKEN was sent" if self.token_sent else "no token was sent"


def telling(error: BaseException) -> BaseException:
    """Return the exception that says what happened: huggingface_hub wraps some in "file not found locally"."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@singledispatch
def explain(error: BaseException, asked: Asked) -> SourceError:
    """Return `error` as a SourceError with the value and the fix."""
    return SourceError(f"hf:{asked.repo} cannot be fetched from {asked.endpoint}: {type(error).__name__}")


@explain.register
def _(error: GatedRepoError, asked: Asked) -> SourceError:
    remedy = (
        "use a token of an account that has access" if asked.token_sent else "set HF_TOKEN to a token of your account"
    )
    return SourceError(
        f"hf:{asked.repo} is gated and access was refused ({asked.account})",
        fix=f"accept its licence at {asked.page} and {remedy}",
    )


@explain.register
def _(error: RepositoryNotFoundError, asked: Asked) -> SourceError:
    remedy = "whether that token may read it" if asked.token_sent else "set HF_TOKEN if it is private"
    return SourceError(
        f"hf:{asked.repo} does not exist at {asked.endpoint}, or is private ({asked.account})",
        fix=f"check the name, and {remedy}",
    )


@explain.register
def _(error: RevisionNotFoundError, asked: Asked) -> SourceError:
    known = ", ".join(asked.known_revisions)
    return SourceError(
        f"hf:{asked.repo} has no revision {asked.revision!r}",
        fix=f"use one that exists: {known}" if known else f"look at {asked.page}/commits",
    )


@explain.register
def _(error: HfHubHTTPError, asked: Asked) -> SourceError:
    status = error.response.status_code
    remedies = {
        401: "set HF_TOKEN to a valid token, or unset it",
        403: f"ask for access at {asked.page}, or use a token with read permission",
        404: "run again: the repository changed while it was being read",
        429: "wait a few minutes; with HF_TOKEN set the limit is higher",
    }
    return SourceError(
        f"{asked.endpoint} answered HTTP {status} for hf:{asked.repo} ({asked.account})",
        fix=remedies.get(status, "try again later: the Hub seems to be in trouble"),
    )


@explain.register
def _(error: OfflineModeIsEnabled, asked: Asked) -> SourceError:
    return SourceError(
        f"hf:{asked.repo} at {asked.revision} is not complete in {asked.cache}, and HF_HUB_OFFLINE forbids fetching it",
        fix="unset HF_HUB_OFFLINE, or pin `huggingface.version` to a full commit that is there",
    )


@explain.register
def _(error: httpx2.HTTPError, asked: Asked) -> SourceError:
    return SourceError(
        f"{asked.endpoint} cannot be reached for hf:{asked.repo} ({type(error).__name__})",
        fix="check the network, HF_ENDPOINT and the proxy settings, and run again: finished files are kept",
    )


@explain.register
def _(error: HFValidationError, asked: Asked) -> SourceError:
    return SourceError(f"hf:{asked.repo} is not a repository name", fix="write hf:ORG/REPO")


@explain.register
def _(error: OSError, asked: Asked) -> SourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SourceError(
            f"the disk of {asked.cache} is full; hf:{asked.repo} does not fit",
            fix="free space, or set HF_HOME to a folder on a larger disk, and run again: finished files are kept",
        )
    return SourceError(
        f"hf:{asked.repo} cannot be stored in {asked.cache}: {error.strerror or type(error).__name__}",
        fix="run again; if it stays, check the folder's permissions",
    )
