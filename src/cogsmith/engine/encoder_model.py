"""A transformers model without a head, in memory: what it is, and its hidden states for a batch of texts."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from cogsmith.detokenize import fingerprint
from cogsmith.engine import autocast, loader, trained
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.model_tokenizer import decodable_ids, load_tokenizer
from cogsmith.engine.request import Pooling
from cogsmith.engine.rows.forward import NOT_THIS_ONE
from cogsmith.engine.trained import Trained
from cogsmith.errors import UserError
from cogsmith.manifest import DECODER, ENCODER

_log = logging.getLogger("cogsmith.engine")

_POOLING: Mapping[str, Pooling] = {ENCODER: "mean", DECODER: "last"}
"""How vectors are pooled where the checkpoint does not say: a decoder's last token alone has read the whole text."""

_PROBE_LENGTHS = (5, 9)
_TOLERANCE = 1e-3
_COARSE_TOLERANCE = 5e-2
"""Relative to the largest value, in float32 and in shorter types: what rounding may do, and padding must not exceed."""

_POOLER = "pooler."
"""A layer over the first token that many checkpoints lack, and no answer uses."""


@dataclass(frozen=True, slots=True)
class States:
    """Hidden states of a batch, float32, [rows, tokens, width]: the last one, and the embedding's and all layers'.

    `layers` is empty where they were not asked for.
    """

    last: torch.Tensor
    layers: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class EncoderModel:
    """A model and its tokenizer, None where the folder holds none, ready to run."""

    name: str
    task: str
    model: Any
    tokenizer: Any | None
    trained: Trained

    @property
    def vocab_size(self) -> int:
        """How many ids, from 0, the model has."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @cached_property
    def padding_id(self) -> int:
        """The id that pads; what it is makes no difference, as it is masked."""
        own = getattr(self.tokenizer, "pad_token_id", None), getattr(self._config, "pad_token_id", None)
        return next((token for token in own if token is not None and 0 <= token < self.vocab_size), 0)

    @cached_property
    def longest(self) -> int:
        """The longest text, in tokens."""
        stated = loader.longest_context(self.model.config, None)
        return min([stated, *_usable_positions(self.model)])

    @cached_property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self._alone.layers) - 1

    @cached_property
    def width(self) -> int:
        """Length of a token's vector."""
        return int(self._alone.last.shape[-1])

    @cached_property
    def bears_padding(self) -> bool:
        """Whether a text's vectors stay the same beside a longer one: found out by comparing.

        They do not where a model mixes all positions, or does not take a mask.
        """
        rows = self._probe_rows()
        if len({len(row) for row in rows}) < len(rows) or not self._takes_mask:
            return False
        alone = self._alone.last[0]
        beside = self._probe(rows).last[0, : len(rows[0])]
        tolerance = _TOLERANCE if self.model.dtype == torch.float32 else _COARSE_TOLERANCE
        return bool((alone - beside).abs().max() <= tolerance * alone.abs().max())

    def info(self, max_context: int | None) -> EngineInfo:
        """Describe the model; `max_context` is a limit from outside, None for none."""
        parameters = list(self.model.parameters())
        return EngineInfo(
            model=self.name,
            engine="transformers",
            head_size=self.vocab_size,
            vocab_size=decodable_ids(self.tokenizer, self.vocab_size),
            max_context=min(self.longest, max_context or sys.maxsize),
            eos_ids=frozenset(),
            bos_id=getattr(self.tokenizer, "bos_token_id", None),
            parameters=sum(parameter.numel() for parameter in parameters),
            footprint_bytes=self.model.get_memory_footprint(),
            layers=self.layers,
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=str(parameters[0].device),
            details={
                "architecture": type(self.model).__name__,
                "runner": "padded" if self.bears_padding else "equal lengths",
                "tokenizer": None if self.tokenizer is None else fingerprint(self.tokenizer.get_vocab()),
                "quantization": None,
                "width": self.width,
                "pooling": self.trained.pooling,
                "pooling_is_stated": self.trained.is_stated,
                "normalize": self.trained.normalize,
                "trained_length": self.trained.max_length,
                "lowercase": self.trained.lowercase,
            },
            task=self.task,
        )

    @torch.inference_mode()
    def run(self, ids: torch.Tensor, mask: torch.Tensor, *, every_layer: bool) -> States:
        """Return the hidden states of a batch of `ids` and what of it is text, both [rows, tokens]."""
        inputs = {"input_ids": ids, **({"attention_mask": mask.to(ids.dtype)} if self._takes_mask else {})}
        answer = self.model(**inputs, output_hidden_states=every_layer, return_dict=True)
        layers = answer.hidden_states if every_layer else ()
        return States(answer.last_hidden_state.float(), tuple(states.float() for states in layers))

    def batch(self, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]]) -> tuple[torch.Tensor, ...]:
        """Return the ids of a batch, padded on the right, and what of it is text, as tensors where the model is."""
        longest, device = max(map(len, rows)), self.model.get_input_embeddings().weight.device
        ids = [[*row, *[self.padding_id] * (longest - len(row))] for row in rows]
        mask = [[*row, *[False] * (longest - len(row))] for row in masks]
        return torch.tensor(ids, device=device), torch.tensor(mask, dtype=torch.bool, device=device)

    @property
    def _config(self) -> Any:
        return self.model.config.get_text_config()

    @cached_property
    def _takes_mask(self) -> bool:
        return "attention_mask" in inspect.signature(self.model.forward).parameters

    def _probe_rows(self) -> list[list[int]]:
        """Two short texts of some ids that do not pad, of different lengths where the model has so many positions."""
        usable = [token for token in range(min(self.vocab_size, 256)) if token != self.padding_id]
        return [[usable[(3 + 7 * i) % len(usable)] for i in range(min(n, self.longest))] for n in _PROBE_LENGTHS]

    @cached_property
    def _alone(self) -> States:
        """What the first of them gives by itself."""
        return self._probe(self._probe_rows()[:1])

    def _probe(self, rows: Sequence[Sequence[int]]) -> States:
        ids, mask = self.batch(rows, [[True] * len(row) for row in rows])
        return self.run(ids, mask, every_layer=True)


def load_encoder(folder: Path, model_args: Mapping[str, Any], *, name: str, task: str) -> EncoderModel:
    """Load the checkpoint in `folder` with `from_pretrained(**model_args)`, without its head.

    It goes where `loader.load` puts a model. Raises UserError for an encoder and decoder in one, and for weights
    that lack a part of the model. Nothing is fetched from anywhere.
    """
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    loader.limit_threads()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    model_args, computed = autocast.taken(model_args)
    config = loader.read_config(folder, model_args)
    auto_class = loader.class_for(task, config)
    if auto_class is AutoModel and getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{config.model_type} is an encoder and a decoder in one, which task = {task!r} does not serve",
            fix="name a model that is one of the two",
        )
    defaults = {"device_map": "auto"} if torch.cuda.is_available() else {}
    dtype = loader.asked_dtype(model_args) or loader.best_dtype(config)
    arguments = {**defaults, **model_args, "dtype": dtype, "local_files_only": True}
    arguments.pop("torch_dtype", None)
    model, report = auto_class.from_pretrained(folder, **arguments, output_loading_info=True)
    model.eval().requires_grad_(requires_grad=False)
    _require_whole(model, report)
    autocast.cast(model, computed)
    # Keys and values are of no use after a text, and take memory.
    model.config.use_cache = False
    said = trained.read(folder, _POOLING[task])
    if said.unknown:
        _log.warning("the model's own vectors are made with %s, which is not here: requests say pooling", said.unknown)
    tokenizer = load_tokenizer(folder, trust=loader.trusts_code(model_args))
    loaded = EncoderModel(name, task, model, tokenizer, said)
    _require_vectors(loaded)
    return loaded


def _require_vectors(loaded: EncoderModel) -> None:
    try:
        loaded.width  # noqa: B018 - the model is run for it
    except NOT_THIS_ONE as error:
        raise UserError(
            f"{type(loaded.model).__name__} makes no vectors of texts alone: {type(error).__name__}: {error}",
            fix="name a model that reads texts and nothing beside them",
        ) from error


def _require_whole(model: Any, report: Mapping[str, Any]) -> None:
    """Refuse a model some of whose weights transformers has made up, unless nothing uses them."""
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(_POOLER)):
        raise UserError(
            f"the weights lack {len(missing)} tensors of {type(model).__name__}, such as {missing[0]}",
            fix="name the weights that config.json is for",
        )


def _usable_positions(model: Any) -> list[int]:
    """Return how many positions a text may have by the tables that count from the padding id on, as RoBERTa's does.

    Such a table's first rows, up to the one of the padding, are no position (fairseq's `make_positions`).
    """
    return [
        int(table.num_embeddings - table.padding_idx - 1)
        for name, table in model.named_modules()
        if name.endswith("position_embeddings")
        and isinstance(table, torch.nn.Embedding)
        and table.padding_idx is not None
    ]
