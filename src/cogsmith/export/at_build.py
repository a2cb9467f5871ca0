"""`export.onnx` of config.toml: the graph of a model that has just been built, made again only where something changed.

What was made is remembered in the cache, as what a build puts at `output.uri` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cogsmith.config.model import Model, OnnxSettings
from cogsmith.export.onnx import Exported, export_as, require_packages
from cogsmith.sources.base import Reporter
from cogsmith.workdir import lock, output, placed
from cogsmith.workdir.lock import LockedFile
from cogsmith.workdir.placed import Placed


def require_possible(models: Sequence[Model]) -> None:
    """Raise MissingExtra or UserError where the graphs of `models` could not be made: before a build does any work."""
    wanted = [model.onnx for model in models if model.onnx]
    if wanted:
        require_packages()
    for settings in wanted:
        if _ours(settings) is None:
            output.require_free(settings.output, force=settings.force)


def make(model: Model, folder: Path, reporter: Reporter) -> Exported | None:
    """Export the finished work directory `folder` of `model`; None where nothing is wanted, or it lies there already.

    Raises as `onnx.export` does.
    """
    settings = model.onnx
    if settings is None:
        return None
    files = lock.read(folder.parents[1] / lock.FILE_NAME)[model.name].files
    identity, ours = _identity(settings, files), _ours(settings)
    if ours and ours.identity == identity:
        return None
    # What the last build put there is not the user's.
    made = export_as(folder, replace(settings, force=settings.force or ours is not None), reporter)
    placed.remember(_marker(settings), Placed(identity, dict(made.files)))
    return made


def _identity(settings: OnnxSettings, files: Sequence[LockedFile]) -> str:
    how = (settings.dynamic, settings.batch_size, settings.max_seq_len, settings.opset, settings.verify)
    return f"{placed.identity_of(files)} {how}"


def _ours(settings: OnnxSettings) -> Placed | None:
    """Return what the last export left at the place, where that and nothing else lies there."""
    note = placed.recall(_marker(settings))
    return note if note and output.sizes_at(settings.output) == note.files else None


def _marker(settings: OnnxSettings) -> Path:
    return placed.marker("exports", settings.output)
