"""One call of a transformers model, the same for every row back-end."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cogsmith.engine.request import IMAGE_MASK, Media

NewCache = Callable[[], Any]

NOT_THIS_ONE = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError)
"""What a model raises when it is run in a way that its architecture does not know."""


@dataclass(frozen=True, slots=True)
class Behind:
    """What a prompt's images leave for the tokens behind it.

    `lag` is what is to be added to the number of tokens before one to get its position: an image may take fewer
    positions than tokens. `image_mask` `[1, 1, images, tiles]` says which images these tokens see, to a model that asks
    at every pass, as Llama 3.2 Vision does; None for one that puts images in the place of tokens.
    """

    lag: int = 0
    image_mask: torch.Tensor | None = None


class Forward:
    """A causal language model as a function from tokens and a cache to logits.

    Hides what differs between architectures: what its cache is called, whether `logits_to_keep`
    and `position_ids` are taken.
    """

    def __init__(self, model: Any) -> None:
        accepted = inspect.signature(model.forward).parameters
        self._model = model
        self._keeps_logits = "logits_to_keep" in accepted
        self._takes_positions = "position_ids" in accepted
        # A class of the model's own may know of no caches at all.
        kinds = {parameter.kind for parameter in accepted.values()}
        self._takes_use_cache = "use_cache" in accepted or inspect.Parameter.VAR_KEYWORD in kinds
        # Mamba and its kind; one that knows neither would ignore its cache without a word.
        self._cache_name = "cache_params" if "cache_params" in accepted else "past_key_values"
        self._is_spread = len(set(getattr(model, "hf_device_map", {}).values())) > 1
        # Where a model of Qwen-VL's kind keeps how far its positions lag behind the count of tokens.
        self._lagging = next((part for part in model.modules() if hasattr(part, "rope_deltas")), None)
        self.config = model.config
        self.head_size = int(model.get_output_embeddings().weight.shape[0])
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.get_input_embeddings().weight.device

    def __call__(
        self,
        input_ids: torch.Tensor,
        cache: Any = None,
        *,
        num_wanted: int | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run `input_ids` `[rows, tokens]` behind `cache`, which grows in place; alone without one.

        `attention_mask` `[rows, cached + tokens]` and `position_ids` `[rows, tokens]` are needed where rows are
        padded. `image_mask` says which of a cached prompt's images the tokens see, `[rows, tokens, images, tiles]`,
        to a model that asks at every pass (see `Behind`). Returns the logits after the last `num_wanted`
        tokens, all by default: `[rows, num_wanted, head_size]`.
        """
        arguments = self._arguments(input_ids, uses_cache=cache is not None)
        if cache is not None:
            arguments[self._cache_name] = cache
        if attention_mask is not None:
            arguments["attention_mask"] = attention_mask
        if position_ids is not None and self._takes_positions:
            arguments["position_ids"] = position_ids
        if image_mask is not None:
            arguments[IMAGE_MASK] = image_mask
        if num_wanted is not None and self._keeps_logits:
            # 0 would mean all of them: one that nobody wants is cheaper.
            arguments["logits_to_keep"] = max(1, num_wanted)
        logits: torch.Tensor = self._model(**arguments).logits
        return logits if num_wanted is None else logits[:, logits.shape[1] - num_wanted :]

    def with_media(
        self, input_ids: torch.Tensor, media: Media, cache: Any, *, num_wanted: int
    ) -> tuple[torch.Tensor, Behind]:
        """Run a whole prompt `[1, tokens]` with its images; an empty `cache` takes it up.

        Returns the logits as a call does, `[1, num_wanted, head_size]`, and what the tokens behind the prompt need.
        """
        arguments = self._arguments(input_ids, uses_cache=True) | {self._cache_name: cache}
        if self._keeps_logits:
            arguments["logits_to_keep"] = max(1, num_wanted)
        # Where images are, positions are the model's own matter.
        placed = self.placed(media)
        logits: torch.Tensor = self._model(**arguments, **placed).logits
        mask = placed.get(IMAGE_MASK)
        # What follows sees what the prompt's last token does.
        behind = Behind(self.forget_lag(), None if mask is None else mask[:, -1:])
        return logits[:, logits.shape[1] - num_wanted :], behind

    def placed(self, media: Media) -> dict[str, Any]:
        """Return the media's arguments on the model's device, numbers that are no indices in its dtype."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in media.values.items()
        }

    def forget_lag(self) -> int:
        """Return by how much positions after the last images differ from the count of tokens; the model forgets it."""
        if self._lagging is None or self._lagging.rope_deltas is None:
            return 0
        lag = int(self._lagging.rope_deltas.reshape(-1)[0])
        # The model would go on from here with any text that comes next.
        self._lagging.rope_deltas = None
        return lag

    def packed(self, input_ids: torch.Tensor, position_ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Run the tokens of many rows in one line, `[1, tokens]`, without a cache: attention keeps them apart.

        Returns the logits after the tokens at the places `wanted`, `[wanted, head_size]`. Raises TypeError for a model
        that cannot be told positions: it would take the line for one text.
        """
        if not self._takes_positions:
            raise TypeError("the model takes no position_ids")
        arguments = {**self._arguments(input_ids, uses_cache=False), "position_ids": position_ids}
        if self._is_spread:
            # The last layers are on another device than the first; indices on the host go with either.
            wanted = wanted.cpu()
        if self._keeps_logits:
            logits: torch.Tensor = self._model(**arguments, logits_to_keep=wanted).logits
            return logits[0]
        return self._model(**arguments).logits[0, wanted]  # type: ignore[no-any-return]

    def _arguments(self, input_ids: torch.Tensor, *, uses_cache: bool) -> dict[str, Any]:
        return {"input_ids": input_ids, **({"use_cache": uses_cache} if self._takes_use_cache else {})}
