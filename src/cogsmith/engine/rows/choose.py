"""Which row back-end runs a model, and how much it may remember."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from cogsmith.engine.kv.memory import PAGE_SIZE, KVMemory
from cogsmith.engine.loader import LoadedModel, longest_context
from cogsmith.engine.quantization import couples_rows
from cogsmith.engine.rows.batch import whole_cache
from cogsmith.engine.rows.budget import kv_budget
from cogsmith.engine.rows.forward import NOT_THIS_ONE, Forward
from cogsmith.engine.rows.given import Shapes, shapes_of
from cogsmith.engine.rows.hazards import Hazards, hazards
from cogsmith.engine.rows.image_test import FIX_BOTH_DIRECTIONS, ImageTest
from cogsmith.engine.rows.kernels import kernels_for
from cogsmith.engine.rows.packed import paged_layers
from cogsmith.engine.rows.padded import PaddedRunner
from cogsmith.engine.rows.recompute import RecomputeRunner
from cogsmith.engine.rows.regimes import RegimesRunner
from cogsmith.engine.rows.runner import Runner
from cogsmith.engine.rows.self_test import SelfTest
from cogsmith.engine.rows.solo import SoloRunner, UnchunkedRunner, WholePromptRunner
from cogsmith.errors import UserError
from cogsmith.manifest import Limits

_log = logging.getLogger("cogsmith.engine")

ALL = ("packed", "padded", "padded_unchunked", "solo", "solo_unchunked", "recompute")
"""Fastest first. Each is right for more architectures than the one before."""

_ANY = sys.maxsize

_ALONE = ("solo_unchunked", "recompute")
"""Those in which no row's numbers can depend on another's, nor on how a step is filled."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The back-end `name`, how to make it, and the number of pages that keys and values may take.

    `max_context` is the longest text for which the back-end is right and has room; `kernel` names its attention.
    `shapes` are those of a row's keys and values, None where it keeps other things.
    """

    name: str
    new_runner: Callable[[], Runner]
    num_pages: int
    max_context: int
    page_size: int = PAGE_SIZE
    kernel: str | None = None
    shapes: Shapes | None = None

    def new_memory(self) -> KVMemory:
        """The accounts of a new runner's pages."""
        return KVMemory(self.num_pages, page_size=self.page_size, shares=self.name == "packed")


def choose_rows(loaded: LoadedModel, limits: Limits, *, allowed: tuple[str, ...] = ALL) -> Rows:
    """Take the first of the `allowed` back-ends that gives a plain forward pass's numbers for this model.

    Raises UserError where the memory granted holds not even one page, and for a model that reads no texts, or reads
    them in both directions.
    """
    forward = Forward(loaded.model)
    dangers = hazards(forward.config)
    self_test = _self_test(loaded, forward)
    _require_causal(loaded, self_test)
    room = _Room(limits, _context(forward.config, limits, dangers, has_images=loaded.images is not None))
    border = dangers.one_regime_until
    if border is not None and room.context <= border:
        border = None
    if couples_rows(loaded.model):
        allowed = tuple(name for name in allowed if name in _ALONE)
    if loaded.images is None and "packed" in allowed and dangers.windows is not None and border is None:
        rows = _packed(forward, self_test, room, dangers.windows)
        if rows is not None:
            return rows
    if room.context > (dangers.batched_until or _ANY):
        allowed = tuple(name for name in allowed if not name.startswith("padded"))
    makers = _makers(loaded, forward)
    if loaded.images is not None:
        name = _with_images(loaded, forward, self_test, {name: makers[name] for name in makers if name in allowed})
    else:
        name = next((name for name in makers if name in allowed and self_test.passes(makers[name]())), "recompute")
    bytes_per_token = _cached_bytes(loaded, forward)
    if border is not None:
        # A row that crosses the border is held twice for a moment.
        return room.rows(name, partial(RegimesRunner, makers[name], border), 2 * bytes_per_token, [forward.device])
    rows = room.rows(name, makers[name], bytes_per_token, [forward.device])
    return replace(rows, shapes=_shapes(name, loaded, forward))


def _self_test(loaded: LoadedModel, forward: Forward) -> SelfTest:
    try:
        return SelfTest(forward, loaded.vocab_size)
    except NOT_THIS_ONE as error:
        if loaded.images is None:
            raise
        raise UserError(
            f"{type(loaded.model).__name__} cannot read a text alone: {type(error).__name__}: {error}",
            fix="serve a model that continues texts with images or without",
        ) from error


def _require_causal(loaded: LoadedModel, self_test: SelfTest) -> None:
    """Raise UserError for a model that reads texts in both directions."""
    # Where rows are coupled, later tokens change the rounding of earlier ones.
    if couples_rows(loaded.model) or self_test.is_causal:
        return
    for_texts = (
        'write task = "encoder" for its vectors; one that was trained to read from left to right says '
        '"is_decoder": true in its config.json'
    )
    raise UserError(
        f"{type(loaded.model).__name__} reads texts in both directions, so that no token has a probability of its own "
        "given those before it",
        fix=FIX_BOTH_DIRECTIONS if loaded.images else for_texts,
    )


def _with_images(
    loaded: LoadedModel, forward: Forward, self_test: SelfTest, makers: Mapping[str, Callable[[], Runner]]
) -> str:
    """Name the first back-end that is right for texts and for images.

    Raises UserError where none gives what transformers itself generates from an image: there is no last resort then.
    """
    image_test = ImageTest(loaded, forward, self_test)
    for name, new_runner in makers.items():
        if name != "recompute" and self_test.passes(new_runner()) and image_test.passes(new_runner()):
            return name
    raise UserError(
        f"{type(loaded.model).__name__} goes on after an image otherwise than transformers itself does",
        fix="serve another model: the answers of this one would be wrong",
    )


def _context(config: Any, limits: Limits, dangers: Hazards, *, has_images: bool) -> int:
    """The longest text that is right, as far as memory allows, in tokens."""
    context = min(longest_context(config, limits.max_context), dangers.defined_until or _ANY)
    border = dangers.one_regime_until
    if border is None or context <= border:
        return context
    if has_images:
        # A row that crosses it is computed anew, which a prompt with images cannot be from its ids alone.
        return border
    if limits.max_context is None:
        # Longer texts cost batches and shared beginnings: only for those who ask for them.
        _log.warning("texts beyond %d tokens are computed otherwise: limits.max_context allows them", border)
        return border
    return context


@dataclass(frozen=True, slots=True)
class _Room:
    """How much memory is granted, and for how long texts."""

    limits: Limits
    context: int

    def rows(
        self,
        name: str,
        new_runner: Callable[[], Runner],
        bytes_per_token: int,
        devices: Collection[torch.device],
    ) -> Rows:
        """The back-end with what of the memory it may use."""
        num_pages = self.num_pages(bytes_per_token, devices, PAGE_SIZE)
        return Rows(name, new_runner, num_pages, min(self.context, num_pages * PAGE_SIZE))

    def num_pages(self, bytes_per_token: int, devices: Collection[torch.device], page_size: int) -> int:
        """Pages for all rows' whole contexts, if there is memory for them."""
        most = self.limits.max_batch_size * -(-self.context // page_size)
        if not bytes_per_token:
            return most
        asked = self.limits.kv_cache_bytes
        granted = kv_budget(devices) if asked is None else asked
        num_pages = granted // (bytes_per_token * page_size)
        if not num_pages:
            raise UserError(
                f"{granted} bytes for keys and values hold no {page_size} tokens, at {bytes_per_token} bytes for each",
                fix="raise limits.kv_cache_bytes, or free memory",
            )
        # What is asked for by name is also for remembering texts; by default a machine is not filled up for that.
        return num_pages if asked is not None else min(num_pages, 2 * most)


def _makers(loaded: LoadedModel, forward: Forward) -> dict[str, Callable[[], Runner]]:
    new_cache = partial(whole_cache, forward.config)
    plain = SoloRunner if loaded.images is None else WholePromptRunner
    return {
        "padded": lambda: PaddedRunner(forward, plain(forward, new_cache)),
        "padded_unchunked": lambda: PaddedRunner(forward, UnchunkedRunner(forward, new_cache)),
        "solo": lambda: plain(forward, loaded.new_cache),
        "solo_unchunked": lambda: UnchunkedRunner(forward, loaded.new_cache),
        "recompute": lambda: RecomputeRunner(forward),
    }


@torch.inference_mode()
def _packed(forward: Forward, self_test: SelfTest, room: _Room, windows: tuple[int | None, ...]) -> Rows | None:
    try:
        layers = paged_layers(forward, windows)
    except NOT_THIS_ONE as error:
        _log.info("the packed back-end does not fit: %s: %s", type(error).__name__, error)
        return None
    size = sum(shape.bytes_per_token for shape in layers.values())
    devices = {shape.device for shape in layers.values()}
    for kernel in kernels_for(layers.values()):
        if self_test.passes(kernel.runner(forward, layers, self_test.num_pages, room.context)):
            num_pages = room.num_pages(size, devices, kernel.page_size)
            new_runner = partial(kernel.runner, forward, layers, num_pages, room.context)
            context = min(room.context, num_pages * kernel.page_size)
            return Rows("packed", new_runner, num_pages, context, kernel.page_size, kernel.name, layers)
    return None


def _shapes(name: str, loaded: LoadedModel, forward: Forward) -> Shapes | None:
    """What the rows of a back-end keep that has caches of its own."""
    if name == "recompute":
        return None
    return shapes_of(forward, partial(whole_cache, forward.config) if name.startswith("padded") else loaded.new_cache)


@torch.inference_mode()
def _cached_bytes(loaded: LoadedModel, forward: Forward) -> int:
    """Bytes that an ordinary cache takes for one more token."""
    sizes = []
    for num_tokens in (1, 2):
        cache = loaded.new_cache()
        try:
            forward(torch.zeros((1, num_tokens), dtype=torch.long, device=forward.device), cache)
        except NOT_THIS_ONE:
            return 0
        layers = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
        sizes.append(sum(layer.keys.nbytes + layer.values.nbytes for layer in layers))
    return int(sizes[1] - sizes[0])
