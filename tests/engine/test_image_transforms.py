"""LLaMA2-Accessory's two transforms of a 60 x 40 image, against numbers computed in another way."""

import numpy as np
import pytest
from PIL import Image

from cogsmith.engine.image_transforms import padded_resize, pixels, resized_center_crop

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture
def image():
    across, down = np.meshgrid(np.arange(60), np.arange(40))
    return Image.fromarray(np.stack([across * 4, down * 6, (across + down) * 2], axis=-1).astype(np.uint8))


def cubic(distance):
    """Keys' kernel with a = -0.5, which PIL's bicubic filter is."""
    x = np.abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def weights(before, after):
    """How much each of `before` samples counts in each of `after`, `[after, before]`: wider where it shrinks."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    found = cubic((np.arange(before)[None] + 0.5 - centres[:, None]) / max(scale, 1.0))
    return found / found.sum(axis=1, keepdims=True)


def resized(values, height, width):
    """Bicubic, across and then down, with the rounding to bytes that an image of bytes has after each."""
    wide = np.einsum("yxc,wx->ywc", values, weights(values.shape[1], width)).round().clip(0, 255)
    return np.einsum("yxc,hy->hxc", wide, weights(values.shape[0], height)).round().clip(0, 255)


def normalised(values):
    return ((values / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)


def assert_close(actual, expected):
    # A sum at the middle between two bytes may be rounded either way: one of 255 steps, at CLIP's least deviation.
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() <= 1.01 / 255 / min(DEVIATION)
    assert np.abs(actual - expected).mean() < 1e-3


@pytest.mark.parametrize("size", [24, 32, 224])
def test_padded_resize(image, size):
    square = np.tile(np.array((122, 116, 104), float), (60, 60, 1))
    square[10:50] = np.asarray(image)
    assert_close(pixels(padded_resize(image, size)), normalised(resized(square, size, size)))


def test_padded_resize_of_a_tall_image(image):
    square = np.tile(np.array((122, 116, 104), float), (60, 60, 1))
    square[:, 10:50] = np.asarray(image).transpose(1, 0, 2)
    tall = image.transpose(Image.Transpose.TRANSPOSE)
    assert_close(pixels(padded_resize(tall, 32)), normalised(resized(square, 32, 32)))


@pytest.mark.parametrize(("size", "width", "left"), [(24, 36, 6), (32, 48, 8), (224, 336, 56)])
def test_resized_center_crop(image, size, width, left):
    expected = resized(np.asarray(image, float), size, width)[:, left : left + size]
    assert_close(pixels(resized_center_crop(image, size)), normalised(expected))


def test_the_colour_around_is_the_mean(image):
    assert tuple(int(255 * mean) for mean in MEAN) == (122, 116, 104)
    assert padded_resize(image, 60).getpixel((30, 3)) == (122, 116, 104)
