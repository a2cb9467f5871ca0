"""`export.onnx` of config.toml: the graph of a model that has just been built, made again only where something changed.

What was made is remembered in the cache, as what a build puts at `output.uri` is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cogsmith.cache import cache_root, write_atomically
from cogsmith.config.model import Model, OnnxSettings
from cogsmith.export.onnx import Exported, Shape, export, require_packages
from cogsmith.sources.base import Reporter, SourceFile
from cogsmith.sources.hashing import fingerprint
from cogsmith.workdir import lock, output
from cogsmith.workdir.lock import LockedFile


class _Made(msgspec.Struct, frozen=True):
    """What the last export put somewhere: a hash over what it was made from and how, and bytes by relative path."""

    identity: str
    files: dict[str, int]


def require_possible(models: Sequence[Model]) -> None:
    """Raise MissingExtra or UserError where the graphs of `models` could not be made: before a build does any work."""
    wanted = [model.onnx for model in models if model.onnx]
    if wanted:
        require_packages()
    for settings in wanted:
        if not _is_ours(settings):
            output.require_free(settings.output, force=settings.force)


def make(model: Model, folder: Path, reporter: Reporter) -> Exported | None:
    """Export the finished work directory `folder` of `model`; None where nothing is wanted, or it lies there already.

    Raises as `onnx.export` does.
    """
    settings = model.onnx
    if settings is None:
        return None
    files = lock.read(folder.parents[1] / lock.FILE_NAME)[model.name].files
    identity = _identity(settings, files)
    if (note := _note(settings)) and note.identity == identity and _is_ours(settings):
        return None
    shape = Shape(batch=settings.batch_size, length=settings.max_seq_len, dynamic=settings.dynamic)
    made = export(
        folder,
        settings.output,
        shape,
        opset=settings.opset,
        verify=settings.verify,
        # What the last build put there is not the user's.
        force=settings.force or _is_ours(settings),
        reporter=reporter,
    )
    marker = _marker(settings)
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(marker, msgspec.json.encode(_Made(identity, dict(made.files))))
    return made


def _identity(settings: OnnxSettings, files: Sequence[LockedFile]) -> str:
    weights = fingerprint(SourceFile(file.path, file.size, file.sha256) for file in files)
    how = (settings.dynamic, settings.batch_size, settings.max_seq_len, settings.opset, settings.verify)
    return f"{weights} {how}"


def _is_ours(settings: OnnxSettings) -> bool:
    """Whether all that lies at the place is what the last export left there."""
    note = _note(settings)
    return note is not None and output.sizes_at(settings.output) == note.files


def _note(settings: OnnxSettings) -> _Made | None:
    try:
        return msgspec.json.decode(_marker(settings).read_bytes(), type=_Made)
    except (OSError, msgspec.DecodeError):
        return None


def _marker(settings: OnnxSettings) -> Path:
    return cache_root() / "exports" / hashlib.sha256(settings.output.encode()).hexdigest()
