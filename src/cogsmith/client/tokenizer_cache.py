"""Tokenizers that servers have sent, kept by vocabulary and model.

Models share vocabularies and differ in chat templates, so the vocabulary alone does not say which tokenizer it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from cogsmith.lmtp import TokenizerFiles

_decoder = msgspec.json.Decoder(TokenizerFiles)


def kept(fingerprint: str, model: str) -> TokenizerFiles | None:
    """Return what is kept for a model; None where nothing is, or it cannot be read."""
    try:
        return _decoder.decode(_file(fingerprint, model).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def keep(fingerprint: str, model: str, files: TokenizerFiles) -> None:
    """Keep `files` for next time, in one step. Where that cannot be done, next time asks again."""
    file = _file(fingerprint, model)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
            temporary.write(msgspec.json.encode(files))
        os.replace(temporary.name, file)


def _file(fingerprint: str, model: str) -> Path:
    """Where a tokenizer is kept. Both names come from a server, so neither becomes part of a path."""
    name = hashlib.sha256(f"{fingerprint} {model}".encode()).hexdigest()
    chosen = os.environ.get("COGSMITH_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cogsmith"
    return base.expanduser() / "tokenizers" / f"{name}.json"
