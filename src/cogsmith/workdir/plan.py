"""What a build would do to one model, before anything is fetched or written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cogsmith
from cogsmith.config.model import WORK, Model, Project
from cogsmith.manifest import CHECKPOINT
from cogsmith.sources.base import Resolved
from cogsmith.sources.custom_code import CustomCode
from cogsmith.workdir import memory, pins, render
from cogsmith.workdir.lock import Entry, LockedFile, diff, is_unaltered
from cogsmith.workdir.places import MODULE_TREE
from cogsmith.workdir.render import RenderedFile

_NOT_OURS = ("__pycache__", ".cog")

State = Literal["new", "unchanged", "changed"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will become of one model.

    `locked` is the last build, `entry` the coming one; the latter repeats the former's weight files, which only
    the coming build can know. `changes` says in words what differs. `state` says whether the folder is made, left
    alone or replaced.
    """

    model: Model
    folder: Path
    resolved: Resolved
    rendered: Mapping[str, RenderedFile]
    memory: memory.Memory
    locked: Entry | None
    entry: Entry
    changes: tuple[str, ...]
    state: State

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes that are not on this machine yet."""
        return self.resolved.bytes_to_fetch

    @property
    def image_bytes(self) -> int:
        """Bytes that the folder adds to the image: the checkpoint and the rendered files."""
        return self.resolved.checkpoint_bytes + sum(len(file.content) for file in self.rendered.values())


def plan(
    project: Project,
    model: Model,
    resolved: Resolved,
    lock: Mapping[str, Entry],
    *,
    code: CustomCode | None = None,
    cache: Path | None = None,
) -> Plan:
    """Say what building `model` from `resolved` and its own `code` would do, given the last builds in `lock`.

    Writes nothing but the digests that `cache` remembers.
    """
    model = model.served_as(resolved.format, resolved.shape)
    folder = project.root / WORK / model.name
    source = " + ".join(_recorded_source(uri, project.root) for uri in (resolved.uri, *resolved.further_uris))
    rendered = render.render(model, _pinned(source, resolved.revision), project, resolved.shape, code)
    locked = lock.get(model.name)
    entry = Entry(
        source=source,
        revision=resolved.revision,
        files=locked.files if locked else (),
        requirements=pins.requirements(model, resolved.shape),
        # Code that is the model's own has hashes of its own.
        template=render.digest({path: file for path, file in rendered.items() if path not in render.model_code(code)}),
        cogsmith=cogsmith.__version__,
        code=_locked(code),
        conversion=resolved.conversion,
    )
    changes = tuple(diff(locked, entry) or _folder_changes(folder, rendered, entry, cache))
    return Plan(
        model=model,
        folder=folder,
        resolved=resolved,
        rendered=rendered,
        memory=memory.estimate(
            model,
            resolved.unquantised_bytes or resolved.checkpoint_bytes,
            resolved.parameters,
            resolved.shape or _shape(folder),
        ),
        locked=locked,
        entry=entry,
        changes=changes,
        state=_state(folder, changes),
    )


def _locked(code: CustomCode | None) -> tuple[LockedFile, ...]:
    files = code.files if code else ()
    return tuple(LockedFile(file.path, len(file.content), file.sha256) for file in files)


def _state(folder: Path, changes: tuple[str, ...]) -> State:
    if not folder.exists():
        return "new"
    return "changed" if changes else "unchanged"


def _recorded_source(uri: str, root: Path) -> str:
    """Return a source's URI as it goes into the lock and the image: without this machine's folders.

    A local path is taken relative to `root`, or by its last name where it is elsewhere; the revision, a hash of the
    content, says exactly what it was.
    """
    scheme, _, body = uri.partition(":")
    if scheme != "path":
        return uri
    path = Path(body)
    return f"path:{path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name}"


def _pinned(source: str, revision: str) -> str:
    """Return the source with its full revision, which some locations already carry in their URI."""
    return source if revision in source else f"{source}@{revision}"


def _folder_changes(
    folder: Path, rendered: Mapping[str, RenderedFile], entry: Entry, cache: Path | None
) -> Iterator[str]:
    """Say how the folder, if there is one, differs from what the last build left."""
    if not folder.exists():
        return
    weights = {f"{CHECKPOINT}/{file.path}": file for file in entry.files}
    present = set(_files(folder))
    expected = rendered.keys() | weights.keys()
    for path in sorted(present - expected):
        yield f"{path} does not belong there"
    for path in sorted(expected):
        target = folder / path
        if not target.is_file():
            yield f"{path} is missing"
        elif path in weights:
            if not is_unaltered(target, weights[path], cache):
                yield f"{path} was altered"
        elif not path.startswith(_NOT_OURS) and not _is_as_rendered(target, rendered[path]):
            yield f"{path} was altered"


def _files(folder: Path) -> Iterator[str]:
    """Yield the relative POSIX paths of the files in `folder`, without what Python, Cog and the command line add."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _NOT_OURS]
        paths = ((Path(parent) / name).relative_to(folder).as_posix() for name in files)
        yield from (path for path in paths if path != MODULE_TREE)


def _is_as_rendered(target: Path, file: RenderedFile) -> bool:
    return target.read_bytes() == file.content and target.stat().st_mode & 0o777 == file.mode


def _shape(folder: Path) -> dict[str, Any] | None:
    """Return config.json of the last build's checkpoint, if there is one that can be read."""
    try:
        shape = json.loads((folder / CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return shape if isinstance(shape, dict) else None
