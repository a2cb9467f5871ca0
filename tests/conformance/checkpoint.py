"""A tiny random checkpoint with all in it that a server must bear: the fast cases run on it."""

from __future__ import annotations

from pathlib import Path

import torch

from ..engine.models import byte_tokenizer, tiny_llama

CONTEXT = 512
_HEAD_SIZE = 272
"""Wider than the tokenizer's 259 ids, as padded embeddings are."""


def write(folder: Path) -> Path:
    """Write the checkpoint to `folder` and return that.

    Three places name four end tokens, the head is padded by ids that the model likes best, and the generation config
    would change every result if it were followed.
    """
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>", additional_special_tokens=["<|end|>"])
    model = tiny_llama(
        vocab_size=_HEAD_SIZE,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=200,
    )
    with torch.no_grad():
        model.lm_head.weight[len(tokenizer) :] *= 4
    model.generation_config.update(
        eos_token_id=[tokenizer.convert_tokens_to_ids("<|end|>"), 201],
        do_sample=True,
        temperature=5.0,
        top_k=1,
        top_p=0.5,
        repetition_penalty=9.0,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
