"""Tokenizers that servers have sent, kept by what they are: the digest that MODEL_INFO tells before one is fetched."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from cogsmith.cache import cache_root, write_atomically
from cogsmith.lmtp import TokenizerFiles, tokenizer_digest

_decoder = msgspec.json.Decoder(TokenizerFiles)


def kept(digest: str) -> TokenizerFiles | None:
    """Return the tokenizer of this digest; None where it is not kept, or is damaged."""
    try:
        files = _decoder.decode(_file(digest).read_bytes())
    except (OSError, ValueError, msgspec.DecodeError):
        return None
    return files if _digest(files) == digest else None


def keep(files: TokenizerFiles) -> None:
    """Keep `files` for next time. Where that cannot be done, next time asks again."""
    file = _file(_digest(files))
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, msgspec.json.encode(files))


def _digest(files: TokenizerFiles) -> str:
    return tokenizer_digest(files.tokenizer, files.special)


def _file(digest: str) -> Path:
    """Where a tokenizer is kept. Raises ValueError for a digest that is none: it comes from a server."""
    number = int(digest.removeprefix("sha256:"), 16)
    return cache_root() / "tokenizers" / f"{number:064x}.json"
