"""Small SentencePiece models, trained by the library itself on a text in many scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentencepiece

TEXT = Path(__file__).parent / "data" / "many_scripts.txt"
OWN = ("<ud>", "##", "ab", "\u2581\u2581", "\n")


def train(folder: Path, **settings: Any) -> Path:
    """Train a model and return its file. By default it is what LLaMA's is: BPE, bytes, no normalization."""
    defaults = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "vocab_size": 1000,
        "hard_vocab_limit": False,
        "character_coverage": 0.98,
    }
    sentencepiece.SentencePieceTrainer.train(
        input=str(TEXT),
        model_prefix=str(folder / "tokenizer"),
        minloglevel=2,
        num_threads=1,
        **{**defaults, **settings},
    )
    (folder / "tokenizer.vocab").unlink()
    return folder / "tokenizer.model"
