"""The image files of a prediction, opened with care: they come from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogsmith.errors import RequestError
from cogsmith.manifest import MAX_IMAGE_PIXELS, MAX_IMAGES, ImageTransform

if TYPE_CHECKING:
    from cogsmith.engine.images import Images, Pictures

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def open_pictures(files: Sequence[Path], images: Images | None, transform: ImageTransform) -> Pictures | None:
    """Return the images in `files` for a model whose processor is `images`; None for one that reads none.

    Raises RequestError for a file that is no image or is too large, and for any where the model reads none.
    """
    if images is None:
        if files:
            raise RequestError("images are given, and this model reads none", fix="leave them out")
        return None
    from cogsmith.engine.images import Pictures

    if len(files) > MAX_IMAGES:
        raise RequestError(f"{len(files)} images are given, more than {MAX_IMAGES}", fix="send fewer")
    return Pictures(images, [_open(place, Path(str(file))) for place, file in enumerate(files)], transform)


def _open(place: int, path: Path) -> Any:
    """Return the image in a file as RGB, upright. Only its size is read where that is too much."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    which = f"image[{place}] ({path.name})"
    try:
        # Opening reads the size alone; PIL itself refuses from 2.7 times as many pixels on.
        with Image.open(path, formats=_FORMATS) as image:
            _refuse_large(image.size, which)
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise RequestError(f"{which} is no image of a known kind", fix=f"send one of {', '.join(_FORMATS)}") from None
    except Image.DecompressionBombError:
        raise RequestError(
            f"{which} has more than {MAX_IMAGE_PIXELS} pixels", fix="make it smaller before sending it"
        ) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise RequestError(f"{which} cannot be read: {error}", fix="send a file that is whole") from None


def _refuse_large(size: tuple[int, int], which: str) -> None:
    width, height = size
    if width * height > MAX_IMAGE_PIXELS:
        raise RequestError(
            f"{which} has {width} x {height} pixels, more than {MAX_IMAGE_PIXELS}",
            fix="make it smaller before sending it",
        )
