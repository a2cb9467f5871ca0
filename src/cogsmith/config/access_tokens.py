"""Access tokens, as they are spelled today: known by their looks, so that none gets into a file or a message."""

from __future__ import annotations

import re

KINDS = {
    "a Hugging Face token": re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,}"),
    "a Replicate token": re.compile(r"(?<![A-Za-z0-9])r8_[A-Za-z0-9]{20,}"),
}


def holds_token(text: str) -> bool:
    """Whether an access token stands anywhere in `text`."""
    return any(pattern.search(text) for pattern in KINDS.values())


def redact(text: str) -> str:
    """Blank out access tokens, so that no message carries one into a log."""
    for pattern in KINDS.values():
        text = pattern.sub(lambda match: f"{match.group()[:3]}…", text)
    return text
