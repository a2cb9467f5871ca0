"""Whether a row back-end goes on after an image as transformers' own `generate` does.

That is the truth here, and not one pass over the whole text: some models count positions in their own way, or let an
image's tokens see each other, and `generate` is where their authors say how it is meant. A model whose prompt is read
in both directions has no numbers for the tokens within it that do not depend on what follows, and is refused.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from itertools import pairwise
from typing import Any

import torch

from cogsmith.engine.loader import LoadedModel
from cogsmith.engine.request import Media
from cogsmith.engine.rows.forward import NOT_THIS_ONE, Forward
from cogsmith.engine.rows.runner import ImagePrompt, RowChunk, Runner
from cogsmith.engine.rows.self_test import LEAST_TOLERANCE, SelfTest, deviation
from cogsmith.errors import UserError

_log = logging.getLogger("cogsmith.engine")

FIX_BOTH_DIRECTIONS = "serve a model that reads from left to right"

_NUM_GENERATED = 7
_STEPS_BETWEEN_STARTS = 2


class ImageTest:
    """Greedy continuations of prompts with an image each, by transformers. Raises UserError where it makes none.

    `self_test` measured how far honest noise goes in this model.
    """

    def __init__(self, loaded: LoadedModel, forward: Forward, self_test: SelfTest) -> None:
        if loaded.images is None:
            raise ValueError("the model reads no images")
        self._self_test = self_test
        self._prompts = loaded.images.samples()
        try:
            is_causal = _is_causal(forward, loaded, *self._prompts[0])
            self._truth = [_generated(loaded.model, forward, *prompt) for prompt in self._prompts]
        except NOT_THIS_ONE as error:
            raise UserError(
                f"{type(loaded.model).__name__} generates nothing from an image: {type(error).__name__}: {error}",
                fix="check that the processor's files belong to the weights",
            ) from error
        if not is_causal:
            raise UserError(
                f"{type(loaded.model).__name__} reads its prompts in both directions, so that no token of one has a "
                "probability of its own",
                fix=FIX_BOTH_DIRECTIONS,
            )

    @torch.inference_mode()
    def passes(self, runner: Runner) -> bool:
        """Return whether `runner` gives the same log-probabilities, up to the model's own noise."""
        try:
            off = deviation(torch.cat([logits for _, logits in self._truth]), self._run(runner))
        except NOT_THIS_ONE as error:
            _log.info("%s takes no images: %s: %s", type(runner).__name__, type(error).__name__, error)
            return False
        fits = off <= self._self_test.tolerance  # False for NaN too
        if not fits:
            _log.info("%s is off by %.3g after an image", type(runner).__name__, off)
        return fits

    def _run(self, runner: Runner) -> torch.Tensor:
        """Run all prompts with what follows them, each starting some steps after the one before; logits by prompt."""
        todo = [
            _chunks(row, ids, media, tokens)
            for row, ((ids, media), (tokens, _)) in enumerate(zip(self._prompts, self._truth, strict=True))
        ]
        logits: list[list[torch.Tensor]] = [[] for _ in todo]
        step = 0
        while any(todo):
            active = [row for row, chunks in enumerate(todo) if chunks and step >= row * _STEPS_BETWEEN_STARTS]
            chunks = [todo[row].popleft() for row in active]
            parts = torch.split(runner.forward(chunks), [chunk.num_wanted for chunk in chunks])
            for row, part in zip(active, parts, strict=True):
                logits[row].append(part)
                if not todo[row]:
                    runner.close_row(row)
            step += 1
        return torch.cat([part for parts in logits for part in parts])


@torch.inference_mode()
def _is_causal(forward: Forward, loaded: LoadedModel, ids: tuple[int, ...], media: Media) -> bool:
    """Whether the logits before a prompt's last token, which is text, stay what they are when that is another one."""
    taken = {ids[-1], *(loaded.images.token_ids if loaded.images else ())}
    prompts = ids, (*ids[:-1], next(id_ for id_ in itertools.count() if id_ not in taken))
    passes = (
        forward.with_media(
            torch.tensor([prompt], device=forward.device), media, loaded.new_cache(), num_wanted=len(ids)
        )[0]
        for prompt in prompts
    )
    # Passes of one shape: the same kernels add up in the same order, so that this is no matter of noise.
    before, after = (logits[0, :-1] for logits in passes)
    return deviation(before, after) <= LEAST_TOLERANCE


@torch.inference_mode()
def _generated(model: Any, forward: Forward, ids: tuple[int, ...], media: Media) -> tuple[list[int], torch.Tensor]:
    """Return greedy tokens, and the logits that each was taken from, `[tokens, head_size]`."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=_NUM_GENERATED,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    prompt = torch.tensor([ids], device=forward.device)
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), **forward.placed(media)}
    own, model.generation_config = model.generation_config, settings
    try:
        # Else what the checkpoint says of how it generates, an end token too, would fill in what is left out.
        made = model.generate(**inputs, generation_config=settings)
    finally:
        model.generation_config = own
    forward.forget_lag()
    return made.sequences[0, len(ids) :].tolist(), torch.cat(made.logits)


def _chunks(row: int, ids: tuple[int, ...], media: Media, tokens: list[int]) -> deque[RowChunk]:
    """The prompt in two chunks, the second with two tokens behind it; then token by token."""
    prompt, text = ImagePrompt(len(ids), media), [*ids, *tokens[:-1]]
    borders = [0, len(ids) // 2, *range(len(ids) + 2, len(text) + 1)]
    return deque(
        RowChunk(row, start, text[start:stop], max(0, stop - max(start, len(ids) - 1)), (), prompt)
        for start, stop in pairwise(borders)
    )
