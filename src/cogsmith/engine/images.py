"""Prompts with images: which ids stand for an image, and what the model reads in their place.

In a text or in ids, a placeholder is one token, the one that the model's processor calls its image token. The processor
puts as many tokens in its place as the model wants for that image; those are what an engine is given.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from cogsmith.engine.image_transforms import TRANSFORMS, pixels
from cogsmith.engine.request import IMAGE_MASK, Media
from cogsmith.errors import RequestError
from cogsmith.manifest import ImageTransform

_KINDS = ("token_type_ids", "mm_token_type_ids")
_NOT_READ = ("input_ids", "attention_mask", "labels", "special_tokens_mask")
_SAMPLE_SIZES = ((48, 64), (80, 40))
_DEFAULT_SIZE = 224
_PATCH_ID = ("image_token_id", "image_token_index")
_SIDES = ("height", "width", "shortest_edge")


@dataclass(frozen=True, slots=True)
class Images:
    """What a model's `processor` makes of images. `size` is the side of the square that the model sees, in pixels.

    `patch_id` is the id in whose places the model puts what it sees: the placeholder's own, but for Llama 4 and others
    that name a whole image and its patches differently. `untold` are the arguments of the model that the processor
    makes for each token of a text, and nothing here from ids.
    """

    processor: Any
    size: int = _DEFAULT_SIZE
    patch_id: int | None = None
    untold: frozenset[str] = frozenset()
    lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held while the processor works: it sets up its tokenizer anew for every call."""

    @property
    def token(self) -> str:
        """The placeholder, as text."""
        return str(self.processor.image_token)

    @property
    def token_id(self) -> int:
        """The placeholder's id."""
        return int(self.processor.tokenizer.convert_tokens_to_ids(self.token))

    @property
    def token_ids(self) -> frozenset[int]:
        """All ids that mean a part of an image, the placeholder's among them."""
        known = {self.token_id, self.patch_id, *self.processor.image_token_ids}
        return frozenset(token for token in known if token is not None)

    def samples(self) -> list[tuple[tuple[int, ...], Media]]:
        """Return prompts to try the model with: with an image of different sizes each, and with both if it may be.

        Raises RequestError where the processor takes no image.
        """
        pictures = [_sample(size) for size in _SAMPLE_SIZES]
        made = [self._prompt_of(f"{self.token} {number}", [picture]) for number, picture in enumerate(pictures)]
        with suppress(RequestError):
            made.append(self._prompt_of(f"{self.token} and {self.token} 2", pictures))
        return made

    def _prompt_of(self, text: str, pictures: Sequence[Image.Image]) -> tuple[tuple[int, ...], Media]:
        ids, media = Pictures(self, pictures).read(text, special=True)
        return ids, media or Media({})


class Pictures:
    """The images of one prediction, in order; there may be none.

    `transform` "model" leaves their pixels to the model's processor; the others are `image_transforms`, with CLIP's
    normalisation. Raises RequestError from every method for images that the processor cannot take.
    """

    def __init__(self, images: Images, pictures: Sequence[Image.Image], transform: ImageTransform = "model") -> None:
        self._images = images
        self._transform = transform
        change = TRANSFORMS.get(transform)
        self._pictures = [change(picture, images.size) if change else picture for picture in pictures]

    def __len__(self) -> int:
        return len(self._pictures)

    @property
    def placeholder(self) -> str:
        """What stands for an image in a text."""
        return self._images.token

    @property
    def chat_template(self) -> Any:
        """The processor's own chat template; None where it has none."""
        return getattr(self._images.processor, "chat_template", None)

    def read(self, text: str, *, special: bool) -> tuple[tuple[int, ...], Media | None]:
        """Return the ids of a text with a placeholder for each image, and what they stand for.

        `special` says whether the tokenizer adds its special tokens.
        """
        self._require_as_many(text.count(self.placeholder))
        if not self._pictures:
            return tuple(self._images.processor.tokenizer.encode(text, add_special_tokens=special)), None
        made = self._process(text, self._pictures, special=special)
        return tuple(made["input_ids"][0].tolist()), Media(self._values(made))

    def expand(self, ids: Sequence[int]) -> tuple[tuple[int, ...], Media | None]:
        """Return ids, which hold a placeholder for each image or all of its tokens, with all tokens, and the media."""
        if self._pictures:
            self._require_told()
        token = self._images.token_id
        of_images = [id_ for span in self._spans for id_ in self._image_tokens(span)]
        if self._image_tokens(ids) != of_images:
            self._require_as_many(list(ids).count(token))
            following = iter(self._spans)
            ids = [part for id_ in ids for part in (next(following) if id_ == token else (id_,))]
            if self._image_tokens(ids) != of_images:
                raise RequestError(
                    f"the prompt has {len(self._image_tokens(ids))} image tokens, and its {len(self)} images take "
                    f"{len(of_images)}",
                    fix=f"send one placeholder (id {token}) for each image",
                )
        return tuple(ids), Media(dict(self._read_alone) | self.told_of(ids)) if self._pictures else None

    def are_in(self, ids: Sequence[int]) -> bool:
        """Whether `ids` hold a token of an image."""
        return bool(self._image_tokens(ids))

    def require_none(self, ids: Sequence[int], field: str) -> None:
        """Raise RequestError where `ids`, which the request calls `field`, hold a token of an image."""
        if found := self._image_tokens(ids):
            raise RequestError(f"{field} holds the image token {found[0]}", fix="put images into the prompt")

    def shortened(self, ids: Sequence[int], media: Media, room: int) -> tuple[tuple[int, ...], Media]:
        """Return a prompt of `room` tokens at most: its beginning is left out, but nothing of an image.

        Raises RequestError where the images alone take more.
        """
        of_images = {id_ for span in self._spans for id_ in span}
        places = [place for place, id_ in enumerate(ids) if id_ not in of_images]
        surplus = len(ids) - room
        if surplus > len(places):
            raise RequestError(
                f"the images take {len(ids) - len(places)} tokens, and there is room for {max(0, room)}",
                fix="send fewer or smaller images, or ask for a shorter answer",
            )
        dropped = set(places[: max(0, surplus)])
        if dropped:
            self._require_told()
        kept = tuple(id_ for place, id_ in enumerate(ids) if place not in dropped)
        return kept, Media(dict(media.values) | self.told_of(kept))

    @cached_property
    def _spans(self) -> list[tuple[int, ...]]:
        """The tokens of each image."""
        made = [self._process(self._images.token, [picture], special=False) for picture in self._pictures]
        return [tuple(one["input_ids"][0].tolist()) for one in made]

    @cached_property
    def _read_alone(self) -> Mapping[str, Any]:
        return self._values(self._process(self._images.token * len(self), self._pictures, special=False))

    def _image_tokens(self, ids: Sequence[int]) -> list[int]:
        known = self._images.token_ids
        return [id_ for id_ in ids if id_ in known]

    def told_of(self, ids: Sequence[int]) -> dict[str, torch.Tensor]:
        """What this model wants to be told of each of `ids`, if anything: its kind, or the images that it sees."""
        told = {name: self._kinds(ids) for name in _KINDS if name in self._read_alone}
        return told | ({IMAGE_MASK: self._images_seen(ids)} if IMAGE_MASK in self._read_alone else {})

    def _kinds(self, ids: Sequence[int]) -> torch.Tensor:
        """Return `[1, tokens]`, 1 where a token is part of an image."""
        return torch.tensor([np.isin(ids, list(self._images.processor.image_token_ids)).astype(int).tolist()])

    def _images_seen(self, ids: Sequence[int]) -> torch.Tensor:
        """Return `[1, tokens, images, tiles]`, 1 where a token sees the tile, by Llama 3.2 Vision's own rules."""
        from transformers.models.mllama import processing_mllama as mllama

        tiles = self._read_alone["aspect_ratio_mask"]
        ranges = mllama.get_cross_attention_token_mask(list(ids), self._images.token_id)
        counts = tiles.sum(-1).tolist()
        dense = mllama.convert_sparse_cross_attention_mask_to_dense([ranges], counts, tiles.shape[-1], len(ids))
        return torch.from_numpy(dense)

    def _require_told(self) -> None:
        if untold := self._images.untold:
            raise RequestError(
                f"this model is told {', '.join(sorted(untold))} of each token, which only its processor knows",
                fix="send prompt or messages, short enough, and no ids",
            )

    def _values(self, made: Mapping[str, Any]) -> dict[str, Any]:
        values = {name: value for name, value in made.items() if name not in _NOT_READ}
        if self._transform != "model":
            values["pixel_values"] = self._own_pixels(values["pixel_values"])
        return values

    def _own_pixels(self, expected: torch.Tensor) -> torch.Tensor:
        own = torch.from_numpy(np.stack([pixels(picture) for picture in self._pictures]))
        if own.shape != expected.shape:
            raise RequestError(
                f"image_transform {self._transform} gives pixels {list(own.shape)}, and this model reads "
                f"{list(expected.shape)}",
                fix='send image_transform = "model"',
            )
        return own

    def _process(self, text: str, pictures: Sequence[Image.Image], *, special: bool) -> Mapping[str, Any]:
        try:
            with self._images.lock:
                made: Mapping[str, Any] = self._images.processor(
                    text=[text], images=list(pictures), return_tensors="pt", add_special_tokens=special
                )
        except (ValueError, TypeError, IndexError) as error:
            raise RequestError(f"the model's processor takes no such images: {error}") from error
        return made

    def _require_as_many(self, num_placeholders: int) -> None:
        if num_placeholders != len(self):
            raise RequestError(
                f"the prompt has {num_placeholders} image placeholders ({self._images.token}), and {len(self)} images "
                "are given",
                fix="send one for each other",
            )


def images_of(processor: Any, config: Any) -> Images:
    """Return what the `processor` of the model of `config` makes of images."""
    patch_id = next((id_ for name in _PATCH_ID if isinstance(id_ := getattr(config, name, None), int)), None)
    images = Images(processor, side_of(processor, config), patch_id)
    return replace(images, untold=_untold(images))


def _untold(images: Images) -> frozenset[str]:
    """Return the names of what grows with a text whose image stays the same, and `Pictures` does not make alike."""
    pictures = Pictures(images, [_sample(_SAMPLE_SIZES[0])])
    try:
        read = [pictures.read(f"{images.token} {text}", special=True) for text in ("1", "1, 2, 3")]
    except RequestError:
        return frozenset()  # the processor takes no images, as the test of the whole model will say
    made = [(ids, media.values, pictures.told_of(ids)) for ids, media in read if media is not None]

    def grows(name: str) -> bool:
        return all(_length(values.get(name)) == len(ids) for ids, values, _ in made)

    def is_alike(name: str) -> bool:
        return all(name in told and torch.equal(told[name], values[name]) for _, values, told in made)

    return frozenset(name for _, values, _ in made for name in values if grows(name) and not is_alike(name))


def _length(value: Any) -> int | None:
    return value.shape[1] if isinstance(value, torch.Tensor) and value.dim() > 1 else None


def side_of(processor: Any, config: Any) -> int:
    """Return the side of the square of pixels that a model sees: its processor's, its own, or 224."""
    for stated in (getattr(processor.image_processor, name, None) for name in ("crop_size", "size")):
        sides = {side for key in _SIDES if (side := getattr(stated, key, None)) is not None}
        if len(sides) == 1:
            return int(sides.pop())
    side = getattr(getattr(config, "vision_config", None), "image_size", None)
    return side if isinstance(side, int) else _DEFAULT_SIZE


def _sample(size: tuple[int, int]) -> Image.Image:
    """An image of `size` with something in every place: no two of its rows or columns are alike."""
    width, height = size
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    colours = [across * 255 // width, down * 255 // height, (across * down) % 256]
    return Image.fromarray(np.stack(colours, axis=-1).astype(np.uint8))
