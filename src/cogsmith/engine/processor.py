"""The processor of a checkpoint: what makes pixels of images, and the model's own image tokens of a placeholder.

Images go through PIL, never torchvision, so that the same file gives the same numbers wherever the model is served.
What a processor does with videos and sounds needs other packages, and nobody here asks for it: it is left out.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec

from cogsmith.errors import UserError

_NAMED_IN = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files that may name the processor's class, as transformers looks through them."""

_LEFT_OUT = frozenset({"video_processor", "feature_extractor"})


def load_processor(folder: Path, *, trust: bool) -> Any:
    """Load the processor of the checkpoint in `folder`; `trust` lets its own code run.

    Raises UserError where there is none for images, or where it needs what is not installed.
    """
    try:
        if importlib.util.find_spec("PIL") is None:
            raise ImportError("Pillow is not installed")
        return _load(folder, {"trust_remote_code": trust, "local_files_only": True})
    except (ImportError, RuntimeError) as error:  # the second where torchvision is built for another torch
        raise UserError(
            f"this model's processor cannot be loaded: {str(error).strip()}",
            fix="install what it needs here; for containers, name it in requirements and build again",
        ) from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"the weights come without a processor for images: {error}",
            fix="use weights with preprocessor_config.json and processor_config.json, as save_pretrained writes them",
        ) from error


def _load(folder: Path, places: dict[str, Any]) -> Any:
    from transformers import AutoImageProcessor, AutoProcessor

    images = AutoImageProcessor.from_pretrained(folder, backend="pil", **places)
    kind = _class(folder)
    if kind is not None and not _LEFT_OUT.isdisjoint(kind.get_attributes()):
        return _of_images(kind, images, folder, places)
    processor = AutoProcessor.from_pretrained(folder, **places)
    if not hasattr(processor, "image_processor"):
        raise ValueError(f"{type(processor).__name__} takes none")
    processor.image_processor = images
    return processor


def _class(folder: Path) -> Any | None:
    """Return transformers' own class of the processor; None where the files name none of these."""
    import transformers

    for file in _NAMED_IN:
        if (folder / file).is_file():
            stated = msgspec.json.decode((folder / file).read_bytes(), type=dict[str, Any])
            if isinstance(name := stated.get("processor_class"), str):
                found = getattr(transformers, name, None)
                return found if hasattr(found, "get_attributes") else None
    return None


def _of_images(kind: Any, images: Any, folder: Path, places: dict[str, Any]) -> Any:
    """Make a processor of the class `kind`, which would have parts for videos or sounds."""
    from transformers import AutoTokenizer

    def check(self: Any, name: str, part: Any) -> Any:
        return None if name in _LEFT_OUT else kind.check_argument_for_proper_class(self, name, part)

    without: Any = type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
    parts = {"image_processor": images, "tokenizer": AutoTokenizer.from_pretrained(folder, **places)}
    stated, _ = kind.get_processor_dict(folder, local_files_only=True)
    return without.from_args_and_dict([parts.get(name) for name in kind.get_attributes()], stated)
