"""`cogsmith.lock`: what each model was built from, exactly. It belongs into version control beside config.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cogsmith.cache import write_atomically
from cogsmith.errors import UserError
from cogsmith.sources.hashing import sha256_file

FILE_NAME = "cogsmith.lock"
_VERSION = 1


class LockedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a checkpoint or of a model's own code: its relative POSIX path there, bytes, and SHA-256 in hex."""

    path: str
    size: int
    sha256: str


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one model was built from. `template` is one hash over everything rendered, `cogsmith` the version.

    `code` are the model's own Python files, for the few that have some; `conversion` says what weights in another
    format were converted by and to.
    """

    source: str
    revision: str
    files: tuple[LockedFile, ...]
    requirements: tuple[str, ...]
    template: str
    cogsmith: str
    code: tuple[LockedFile, ...] = ()
    conversion: str = ""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    models: dict[str, Entry]


def read(path: Path) -> dict[str, Entry]:
    """Return the entries by model name; none where there is no file. Raises UserError for one that is not a lock."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise UserError(
            f"{path} is not a lock file: {error}", fix="restore it from version control, or delete it and build"
        ) from None
    if document.version != _VERSION:
        raise UserError(
            f"{path} has version {document.version}, and this Cogsmith reads version {_VERSION}",
            fix="use the Cogsmith that wrote it, or delete it and build",
        )
    return document.models


def entry_of(folder: Path) -> Entry | None:
    """Return the entry of the work directory `folder` in its project's lock; None where it is in none.

    Raises UserError as `read` does.
    """
    return read(folder.parent.parent / FILE_NAME).get(folder.name)


def write(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write `entries`, sorted by name, in one step. The same entries give the same bytes."""
    document = _Document(_VERSION, dict(sorted(entries.items())))
    write_atomically(path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def is_unaltered(path: Path, file: LockedFile, cache: Path | None = None) -> bool:
    """Tell whether the bytes at `path` are still those of `file`; hashes them where that was not done before."""
    return path.stat().st_size == file.size and sha256_file(path, cache=cache) == file.sha256


def diff(old: Entry | None, new: Entry) -> list[str]:
    """Say in plain words what differs between two builds of one model; nothing where they are the same."""
    if old is None:
        return ["not in the lock yet"]
    changes = []
    for label, before, after in (
        ("source", old.source, new.source),
        ("revision", old.revision, new.revision),
        ("conversion", old.conversion or "none", new.conversion or "none"),
        ("Cogsmith", old.cogsmith, new.cogsmith),
    ):
        if before != after:
            changes.append(f"{label} {before} -> {after}")
    changes += _requirement_changes(old.requirements, new.requirements)
    changes += _file_changes(old.files, new.files, "file")
    changes += _file_changes(old.code, new.code, "code file")
    if old.template != new.template:
        changes.append("rendered files differ: the config, the templates or Cogsmith's own code changed")
    return changes


def _requirement_changes(old: tuple[str, ...], new: tuple[str, ...]) -> list[str]:
    dropped = [f"requirement {line} dropped" for line in old if line not in new]
    return dropped + [f"requirement {line} added" for line in new if line not in old]


def _file_changes(old: tuple[LockedFile, ...], new: tuple[LockedFile, ...], label: str) -> list[str]:
    before, after = ({file.path: file for file in files} for files in (old, new))
    changes = []
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            changes.append(f"{label} {path} dropped")
        elif path not in before:
            changes.append(f"{label} {path} added")
        elif before[path].size != after[path].size:
            changes.append(f"{label} {path}: {before[path].size} -> {after[path].size} bytes")
        elif before[path] != after[path]:
            changes.append(f"{label} {path}: same size, other content")
    return changes
