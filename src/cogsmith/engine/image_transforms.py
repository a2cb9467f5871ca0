"""How an image becomes a square of pixels, in LLaMA2-Accessory's two ways.

padded_resize          pasted in the middle of a square of the mean colour, then resized
resized_center_crop    its shorter side resized, then the middle cut out

Resizing is bicubic. Values are brought to 0…1, then to the mean and deviation of CLIP's training images:
https://github.com/Alpha-VLLM/LLaMA2-Accessory/blob/main/accessory/data/transform.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

Transform = Callable[[Image.Image, int], Image.Image]

_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
_DEVIATION = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
_BACKGROUND = (122, 116, 104)
"""CLIP's mean as a colour, rounded down."""


def padded_resize(image: Image.Image, size: int) -> Image.Image:
    """Return all of an RGB image in a square of `size` pixels, bars of the mean colour beside it."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), _BACKGROUND)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def resized_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the middle of an RGB image, whose shorter side becomes `size` pixels, as a square."""
    shorter = min(image.size)
    width, height = (size * side // shorter for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def pixels(image: Image.Image) -> np.ndarray:
    """Return the normalised values of an RGB image, float32 `[3, height, width]`."""
    values = np.asarray(image, np.float32) / np.float32(255)
    return np.ascontiguousarray(((values - _MEAN) / _DEVIATION).transpose(2, 0, 1))


TRANSFORMS: Mapping[str, Transform] = {"padded_resize": padded_resize, "resized_center_crop": resized_center_crop}
"""By name. `model`, which is not among them, leaves all to the model's own processor."""
