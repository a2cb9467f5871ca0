"""llama_type, by which LLaMA2-Accessory names its model code, to the module here that knows its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from cogsmith.errors import SourceError
from cogsmith.sources.accessory import falcon, internlm, llama, mixtral, mixtral_sparse
from cogsmith.sources.accessory.inventory import Inventory
from cogsmith.sources.accessory.params import Arguments
from cogsmith.sources.write_safetensors import LazyTensor


class ModelType(Protocol):
    """What a type's module has."""

    def config(self, arguments: Arguments, inventory: Inventory, max_seq_len: int | None) -> dict[str, Any]:
        """Return config.json, without vocabulary and special ids. Raises SourceError."""

    def tensors(self, arguments: Arguments, inventory: Inventory, vocabulary: int) -> Iterator[LazyTensor]:
        """Yield the tensors under transformers' names."""


SUPPORTED: dict[str, ModelType] = {
    "llama": llama,
    "llama_peft": llama,
    "internlm": internlm,
    "falcon": falcon,
    "mixtral": mixtral,
    "mixtral_sparse": mixtral_sparse,
}

TUNED = frozenset({"llama_peft"})
"""Types whose layers may have biases and LoRA."""

EMBEDDINGS = ("tok_embeddings.weight", "word_embeddings.weight", "embedding.weight")
"""The embedding's name, by type: its rows are the vocabulary."""

_REASONS = {
    "adapter": "its prompts are learned key and value prefixes with gates of their own",
    "qformer": "it sees images through a query transformer",
    "ens": "it sees images through several visual encoders (SPHINX)",
    "mixtral_peft": "its experts have biases of their own",
}


def find(llama_type: str) -> ModelType:
    """Return the module of `llama_type`. Raises SourceError with the reason and what there is instead."""
    if llama_type in SUPPORTED:
        return SUPPORTED[llama_type]
    reason = next((reason for part, reason in _REASONS.items() if part in llama_type), None)
    raise SourceError(
        f"llama_type {llama_type!r} is not supported"
        + (f": {reason}, which no model of transformers has" if reason else ""),
        fix=f"supported are {', '.join(SUPPORTED)}; name one as llama_type if the weights are really such",
    )
