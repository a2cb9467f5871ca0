"""A cache as a safetensors file, to go on from in another prediction: data alone, which can do nothing.

token_ids                               int64 [text], the text; keys and values are of its first tokens
layers.N.keys, layers.N.values          [heads, tokens, dim], in the dtype that the model computes in
metadata: format, and the model as a digest of its source and how it is loaded
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cogsmith.engine.request import Cache
from cogsmith.errors import RequestError
from cogsmith.manifest import Manifest

FORMAT = "cogsmith-cache-1"
MOST_BYTES = 2**28
"""Of a file: it travels as text in an answer, a third larger."""

_FIX = "send a file as return_cache gave it"


def model_of(settings: Manifest, model_args: Mapping[str, object]) -> str:
    """Return what tells a model from others whose keys and values are not its own."""
    said = [settings.source, dict(model_args), repr(settings.quant)]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def to_bytes(cache: Cache, model: str) -> bytes:
    """Return the file of a cache. Raises RequestError for one that is too large."""
    tensors = {"token_ids": torch.tensor(cache.tokens, dtype=torch.int64)}
    for index, (keys, values) in cache.layers.items():
        tensors[f"layers.{index}.keys"] = keys.contiguous()
        tensors[f"layers.{index}.values"] = values.contiguous()
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > MOST_BYTES:
        raise RequestError(
            f"the cache of {cache.num_tokens} tokens takes {size} bytes, more than {MOST_BYTES}",
            fix=f"ask for it with a text of {cache.num_tokens * MOST_BYTES // size} tokens at most",
        )
    content: bytes = save(tensors, {"format": FORMAT, "model": model})
    return content


def read(path: Path, model: str) -> Cache:
    """Read the file of a cache of `model`. Raises RequestError for what is none, or another model's."""
    try:
        if path.stat().st_size > MOST_BYTES + 2**20:
            raise RequestError(f"the cache has more than {MOST_BYTES} bytes", fix=_FIX)
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise RequestError(f"the cache cannot be read: {error}", fix=_FIX) from None
    if said.get("format") != FORMAT:
        raise RequestError(f"the cache is no file of the format {FORMAT}", fix=_FIX)
    if said.get("model") != model:
        raise RequestError(
            "the cache is of another model, or of this one loaded otherwise", fix="send a cache that this model gave"
        )
    return _cache(tensors)


def _cache(tensors: dict[str, torch.Tensor]) -> Cache:
    """Put a file's tensors together. What a model's layers must be like, the engine checks."""
    ids = tensors.pop("token_ids", torch.empty(0))
    layers = {}
    try:
        for name in [name for name in tensors if name.endswith(".keys")]:
            stem = name.removesuffix(".keys")
            layers[int(stem.removeprefix("layers."))] = (tensors.pop(name), tensors.pop(f"{stem}.values"))
        lengths = {part.shape[1] for parts in layers.values() for part in parts}
    except (KeyError, ValueError, IndexError) as error:
        raise RequestError(f"the cache lacks a part: {error}", fix=_FIX) from None
    if tensors or ids.dtype != torch.int64 or ids.dim() != 1 or len(lengths) != 1:
        raise RequestError("the cache has other tensors than keys, values and token_ids of one text", fix=_FIX)
    (num_tokens,) = lengths
    if not 0 < num_tokens <= len(ids):
        raise RequestError(f"the cache has {num_tokens} keys for {len(ids)} tokens", fix=_FIX)
    if not all(bool(part.isfinite().all()) for parts in layers.values() for part in parts):
        # One of them would spoil every number of the text.
        raise RequestError("the cache holds infinite or undefined numbers", fix=_FIX)
    return Cache(tuple(ids.tolist()), num_tokens, dict(sorted(layers.items())))
