"""Files as text: data URIs (RFC 2397) in base64, which Cog and Replicate's API take and give in the place of files."""

from __future__ import annotations

import base64
import binascii

BYTES = "application/octet-stream"
"""The kind of a file of which no other is known."""


def encode(content: bytes, kind: str = BYTES) -> str:
    """Return a file as a data URI; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def decode(uri: str) -> bytes:
    """Return the file that is in a data URI. Raises ValueError where it is none in base64, or is cut."""
    said, comma, content = uri.partition(",")
    if not (comma and said.startswith("data:") and said.endswith(";base64")):
        raise ValueError("it is no data URI in base64")
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is cut: {error}") from None
