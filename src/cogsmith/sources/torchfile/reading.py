"""One file of torch's into Python values: zip, pickle and tensors put together, and every fault in the user's words."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cogsmith.errors import SourceError
from cogsmith.sources.torchfile.archive import Archive, OtherKind
from cogsmith.sources.torchfile.foreign import refuse_foreign
from cogsmith.sources.torchfile.globals import Harmful, lookup
from cogsmith.sources.torchfile.machine import run
from cogsmith.sources.torchfile.mapping import MappedFile
from cogsmith.sources.torchfile.tensors import KNOWN, Storages

DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, RuntimeError, MemoryError,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading damaged or hostile bytes raises: RecursionError and NotImplementedError are RuntimeErrors."""

find = partial(lookup, more=KNOWN)
"""What a pickle's global stands for: see `globals.lookup`."""


def read_file(path: Path) -> Any:
    """Return what the file at `path` holds: see `torchfile.load`."""
    with explained(path), MappedFile(path) as file:
        refuse_foreign(path, file.read(0, 512))
        return read_section(file, 0, file.size)


def read_section(file: MappedFile, start: int, size: int) -> Any:
    """Return what the zip in `size` bytes from `start` holds. Raises Harmful, or one of DAMAGE."""
    archive = Archive(file, start, size)
    return run(archive.pickle(), find, Storages(archive).persistent)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what reading `path` raises into a SourceError that names it."""
    try:
        yield
    except Harmful as harm:
        raise SourceError(
            f"{path} is refused: its pickle asks for {harm}, which could run code on this machine. Nothing of it ran",
            fix="take the weights from somebody you trust, as safetensors where there are any",
        ) from None
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error.strerror or error}", fix="check the path and permissions"
        ) from error
    except DAMAGE as error:
        raise SourceError(
            f"{path} is not a sound file of torch.save: {_reason(error)}",
            fix=error.fix
            if isinstance(error, OtherKind)
            else "fetch or save the file again; it was probably cut short",
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, zipfile.BadZipFile):
        return f"its zip directory is missing or wrong ({error})"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, KeyError):
        return f"its pickle refers to {error}, which is not there"
    return str(error)[:300] or type(error).__name__
