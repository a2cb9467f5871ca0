"""The tokenizer beside a checkpoint's weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

_log = logging.getLogger("cogsmith.engine")


def load_tokenizer(folder: Path, *, trust: bool) -> Any | None:
    """Load the tokenizer of the checkpoint in `folder`, None where there is none; `trust` lets its own code run."""
    from transformers import AutoTokenizer

    if not any(folder.glob("tokenizer*")) and not (folder / "vocab.json").exists():
        return None
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)


def with_padding(tokenizer: Any | None) -> Any | None:
    """Return the tokenizer with a padding token: its end token, with a warning, where it names none."""
    if tokenizer is None or tokenizer.pad_token is not None or tokenizer.eos_token is None:
        return tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    _log.warning("the tokenizer names no padding token: its end token, %s, stands for one", tokenizer.eos_token)
    return tokenizer


def decodable_ids(tokenizer: Any | None, head_size: int) -> int:
    """Return how many ids of a head, from 0, its tokenizer can decode; all where there is none."""
    return head_size if tokenizer is None else min(head_size, 1 + int(max(tokenizer.get_vocab().values())))
