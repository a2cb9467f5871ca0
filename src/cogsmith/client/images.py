"""Image files on their way to a model that reads them: inputs of each prediction, beside its operations."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cogsmith import data_uris
from cogsmith.errors import RequestRejected
from cogsmith.lmtp import (
    AnyOperation,
    ExtendedGenerate,
    ExtendedScore,
    Generate,
    Score,
    serialize_batch,
)


def data_uri(file: Path) -> str:
    """Return a file as a data URI, which Replicate's API and Cog take for a file. Raises RequestRejected."""
    try:
        content = file.expanduser().read_bytes()
    except OSError as error:
        raise RequestRejected(f"{file} cannot be read: {error.strerror}", fix="give a file that is there") from error
    kind = mimetypes.guess_type(file.name)[0] or data_uris.BYTES
    return data_uris.encode(content, kind)


def reads_prompts(operations: Sequence[AnyOperation]) -> bool:
    """Whether one of the operations has a prompt, which may be about images."""
    return any(isinstance(one, Generate | Score | ExtendedGenerate | ExtendedScore) for one in operations)


def inputs_of(operations: Sequence[AnyOperation], images: Sequence[str]) -> dict[str, Any]:
    """Return the inputs of a prediction: the operations, and the images where they may be about some."""
    inputs: dict[str, Any] = {"ops_batch_json": serialize_batch(operations)}
    return inputs | ({"image": list(images)} if images and reads_prompts(operations) else {})
