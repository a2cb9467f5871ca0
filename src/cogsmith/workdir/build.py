"""The path of one build, from config.toml's models to folders in `work/`."""

from __future__ import annotations

import difflib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from cogsmith import sources
from cogsmith.cache import cache_root
from cogsmith.config.model import WORK, Model, Project
from cogsmith.errors import (
    LockDrift,
    MissingExtra,
    MissingPackages,
    Problem,
    ProblemsError,
    SourceError,
    UserError,
    WorkdirError,
)
from cogsmith.heads import require_language_model
from cogsmith.manifest import CAUSAL_LM, CHECKPOINT
from cogsmith.sources.base import Checkpoint, CheckpointFile, Reporter, Resolved, Source
from cogsmith.sources.custom_code import CustomCode
from cogsmith.sources.selection import CONFIG
from cogsmith.workdir import architectures, link, lint, lock, model_code, output, swap
from cogsmith.workdir.exclusive import exclusive
from cogsmith.workdir.lock import Entry, LockedFile
from cogsmith.workdir.places import stays_inside
from cogsmith.workdir.plan import Plan, plan
from cogsmith.workdir.render import RenderedFile

OpenSource = Callable[[Model, Path | None], Source]


@dataclass(frozen=True, slots=True)
class Built:
    """A finished work directory: its `plan`, and how many weight files came by each way ("hard link", "copy").

    `delivered` is what was put at `output.uri`; None where nothing had to be.
    """

    plan: Plan
    placed: Mapping[str, int]
    delivered: output.Saved | None = None

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.plan.folder


@dataclass(frozen=True, slots=True)
class _Target:
    """A model with its source, nailed down, and its own code, if it has some."""

    model: Model
    source: Source
    resolved: Resolved
    code: CustomCode | None


def build(
    project: Project,
    names: Sequence[str] = (),
    *,
    frozen: bool = False,
    reporter: Reporter,
    cache: Path | None = None,
    open_source: OpenSource = sources.open_source,
) -> list[Built]:
    """Bring the work directories of `names` (all, where none is given) up to date, in that order.

    Every model is resolved before anything is written. With `frozen`, a build that would differ from
    `cogsmith.lock` raises LockDrift instead. Raises UserError, SourceError, ConversionError or WorkdirError; a
    folder that could not be finished stays as it was.
    """
    targets = _resolve(project, names, cache, open_source)
    if frozen:
        _refuse_drift({item.model.name: lock.diff(item.locked, item.entry) for item in _plans(project, targets, cache)})
    with exclusive(project.root / WORK):
        swap.recover(project.root / WORK)
        plans = _plans(project, targets, cache)
        _require_space_to_fetch(plans, cache)
        for item in plans:
            output.require_deliverable(item, cache)
        return [
            _build_and_deliver(project, item, target, frozen, reporter, cache)
            for item, target in zip(plans, targets, strict=True)
        ]


def preview(
    project: Project,
    names: Sequence[str] = (),
    *,
    cache: Path | None = None,
    open_source: OpenSource = sources.open_source,
) -> list[Plan]:
    """Return what `build` would do. Writes nothing but remembered digests. Raises UserError or SourceError."""
    return _plans(project, _resolve(project, names, cache, open_source), cache)


def select(project: Project, names: Iterable[str]) -> list[Model]:
    """Return the models called `names`, or all. Raises UserError for names that are none, with the nearest ones."""
    wanted = list(dict.fromkeys(names)) or list(project.models)
    unknown = [name for name in wanted if name not in project.models]
    if unknown:
        listed = "; ".join(_unknown(name, project.models) for name in unknown)
        raise UserError(listed, fix=f"the models of {project.path.name} are: {', '.join(project.models)}")
    return [project.models[name] for name in wanted]


def _unknown(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"no model {name!r}" + (f", did you mean {nearest[0]!r}?" if nearest else "")


def _resolve(project: Project, names: Sequence[str], cache: Path | None, open_source: OpenSource) -> list[_Target]:
    """Nail down every model's source. Raises the only error as it is, several as one ProblemsError."""
    found: list[_Target] = []
    errors: list[tuple[Model, UserError]] = []
    for model in select(project, names):
        try:
            source = open_source(model, cache)
            resolved = source.resolve()
            code = model_code.read(model, resolved, cache)
            if code is None:
                architectures.require_known(model, resolved)
            found.append(_Target(model, source, resolved, code))
        except UserError as error:
            errors.append((model, error))
    if len(errors) == 1:
        raise errors[0][1]
    if errors:
        problems = [
            Problem(error.message, error.fix, f"models.{model.name}", model.line or None) for model, error in errors
        ]
        # What only lacks packages is said too, and told apart: they can be installed, and the rest comes up again.
        lacking = (error for _, error in errors if isinstance(error, MissingExtra | MissingPackages))
        raise ProblemsError(project.path.name, problems) from next(lacking, None)
    return found


def _plans(project: Project, targets: Iterable[_Target], cache: Path | None) -> list[Plan]:
    locked = lock.read(project.root / lock.FILE_NAME)
    return [plan(project, target.model, target.resolved, locked, code=target.code, cache=cache) for target in targets]


def _refuse_drift(differences: Mapping[str, Sequence[str]]) -> None:
    """Raise LockDrift naming every difference by model, if there is any."""
    lines = [f"{name}: {text}" for name, texts in differences.items() for text in texts]
    if lines:
        raise LockDrift(
            "\n  ".join([f"the build would differ from {lock.FILE_NAME}:", *lines]),
            fix="build without --frozen, look at the changes, and commit the new lock",
        )


def _build_and_deliver(
    project: Project, item: Plan, target: _Target, frozen: bool, reporter: Reporter, cache: Path | None
) -> Built:
    built = _build_one(project, item, target, frozen, reporter)
    if item.model.output is None:
        return built
    files = lock.read(project.root / lock.FILE_NAME)[item.model.name].files
    return replace(built, delivered=output.deliver(item, files, reporter, cache))


def _build_one(project: Project, item: Plan, target: _Target, frozen: bool, reporter: Reporter) -> Built:
    if item.state == "unchanged":
        return Built(item, {})
    for doubt in model_code.doubts(target.code, item.model, item.resolved):
        reporter.note(doubt)
    checkpoint = target.source.materialise(item.resolved, reporter)
    if target.code is None:
        _require_language_model(item.model, checkpoint)
    entry = _with_files(item.entry, checkpoint)
    if frozen:
        _refuse_drift({item.model.name: lock.diff(item.locked, entry)})
    temporary = swap.temporary_folder(item.folder)
    try:
        _write(temporary, item.rendered)
        placed = _place_weights(temporary / CHECKPOINT, checkpoint, reporter)
        _require_clean(item, temporary)
        swap.replace_folder(temporary, item.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remember(project, item.model.name, entry)
    return Built(item, placed)


def _require_language_model(model: Model, checkpoint: Checkpoint) -> None:
    """Raise UserError for a converted model that continues no text, where that is its task. Others were looked at."""
    config = next((file.origin for file in checkpoint.files if file.path == CONFIG), None)
    if config and model.task == CAUSAL_LM:
        require_language_model(msgspec.json.decode(config.read_bytes(), type=dict[str, object]), model.source)


def _with_files(entry: Entry, checkpoint: Checkpoint) -> Entry:
    files = sorted((LockedFile(file.path, file.size, file.sha256) for file in checkpoint.files), key=lambda f: f.path)
    return msgspec.structs.replace(entry, files=tuple(files))


def _write(folder: Path, files: Mapping[str, RenderedFile]) -> None:
    """Write the rendered files, with modes that do not depend on the umask."""
    for path, file in files.items():
        target = folder / path
        _make_folder(target.parent, folder.parent)
        target.write_bytes(file.content)
        target.chmod(file.mode)


def _place_weights(folder: Path, checkpoint: Checkpoint, reporter: Reporter) -> dict[str, int]:
    """Link the checkpoint's files into `folder`; return how many came by each way."""
    _make_folder(folder, folder.parent)
    _require_space_to_copy(checkpoint.files, folder)
    ways: Counter[str] = Counter()
    with reporter.task("Placing weights", sum(file.size for file in checkpoint.files)) as task:
        for file in checkpoint.files:
            target = folder / _inside(file.path)
            _make_folder(target.parent, folder)
            ways[link.place(file.origin, target)] += 1
            task.advance(file.size)
    return dict(ways)


def _make_folder(folder: Path, root: Path) -> None:
    """Make `folder` and its parents below `root`, with one mode whatever the umask."""
    if folder == root or folder.is_dir():
        return
    _make_folder(folder.parent, root)
    folder.mkdir()
    folder.chmod(0o755)


def _inside(path: str) -> str:
    """Return `path` if it stays inside the folder that it is relative to. Raises SourceError."""
    if not stays_inside(path):
        raise SourceError(f"the checkpoint has a file outside its folder: {path!r}", fix="use another source")
    return path


def _require_clean(item: Plan, folder: Path) -> None:
    problems = lint.check(folder)
    if problems:
        raise WorkdirError(f"{WORK}/{item.model.name} was not replaced", problems)


def _remember(project: Project, name: str, entry: Entry) -> None:
    """Note the build in the lock, and forget models that config.toml no longer has."""
    path = project.root / lock.FILE_NAME
    entries = {key: value for key, value in lock.read(path).items() if key in project.models} | {name: entry}
    if entries != lock.read(path):
        lock.write(path, entries)


def _require_space_to_fetch(plans: Iterable[Plan], cache: Path | None) -> None:
    missing = sum(item.bytes_to_fetch for item in plans if item.state != "unchanged")
    _require_space(cache or cache_root(), missing, "to fetch")


def _require_space_to_copy(files: Iterable[CheckpointFile], folder: Path) -> None:
    device = folder.stat().st_dev
    copied = sum(file.size for file in files if file.origin.stat().st_dev != device)
    _require_space(folder, copied, "to copy, as the weights' cache is on another filesystem,")


def _require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise UserError where the filesystem of `folder`, which may not exist yet, has less than `needed` bytes."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        gigabytes = f"{needed / 1e9:.1f} GB {purpose} and {free / 1e9:.1f} GB free in {there}"
        raise UserError(f"not enough disk space: {gigabytes}", fix="free some space, or choose another cache folder")
