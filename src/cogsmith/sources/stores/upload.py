"""A checkpoint folder into a bucket: PREFIX/FILE for each file.

Weights go first and config.json (of ONNX, model.onnx) last, and an old one goes before anything else: an upload that is
cut is no checkpoint, whoever looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cogsmith.errors import SourceError, UserError
from cogsmith.sources.base import Reporter
from cogsmith.sources.selection import CONFIG, SIDE_FILES, SIDE_PATTERN
from cogsmith.sources.stores.base import StoredObject
from cogsmith.sources.stores.buckets import Bucket

NAMES_TO_SHOW = 8

# Whoever finds one of these takes what lies beside it for whole.
_KEYSTONES = (CONFIG, "model.onnx")
_WEIGHTS = re.compile(r"(model|pytorch_model)[^/]*\.(safetensors|bin)(\.index\.json)?")


def upload(folder: Path, uri: str, *, force: bool = False, reporter: Reporter) -> list[str]:
    """Put every file of `folder` into the store at `uri`, and return the URIs. The sizes there are compared.

    Raises UserError where something is there already, unless `force`; SourceError for what the store refuses, and
    for http, which cannot be written to. With `force`, files of another checkpoint there are removed, and others left.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return upload_files(files, uri, force=force, reporter=reporter)


def upload_files(files: Mapping[str, Path], uri: str, *, force: bool = False, reporter: Reporter) -> list[str]:
    """Do the same with `files`, by their relative POSIX paths there."""
    bucket, prefix = _writable(uri), _prefix(uri)
    there = {stored.key.removeprefix(f"{prefix}/"): stored for stored in bucket.below(prefix)}
    if there and not force:
        raise occupied(uri, there)
    for path in _in_the_way(there, files):
        bucket.remove(f"{prefix}/{path}")
    order = sorted(files, key=_rank)
    with reporter.task(f"Uploading to {uri}", sum(file.stat().st_size for file in files.values())) as task:
        for path in order:
            bucket.put(files[path], f"{prefix}/{path}", task)
            _require_arrived(bucket.describe(f"{prefix}/{path}"), files[path], f"{uri.rstrip('/')}/{path}")
    return [f"{uri.rstrip('/')}/{path}" for path in order]


def stored_sizes(uri: str) -> dict[str, int]:
    """Return the files in the folder at `uri`, by relative path, with their bytes. Raises SourceError."""
    prefix = _prefix(uri)
    return {stored.key.removeprefix(f"{prefix}/"): stored.size for stored in _writable(uri).below(prefix)}


def occupied(place: str, names: Iterable[str]) -> UserError:
    """Say that something is at `place` already."""
    listed = sorted(names)
    more = f" and {len(listed) - NAMES_TO_SHOW} more" if len(listed) > NAMES_TO_SHOW else ""
    unfinished = "" if CONFIG in listed else f", but no {CONFIG}, as after an upload that was cut"
    return UserError(
        f"{place} is not empty: there are {', '.join(listed[:NAMES_TO_SHOW])}{more}{unfinished}",
        fix="name another place, or say --force (output.force = true) to replace what is there",
    )


def _writable(uri: str) -> Bucket:
    if uri.startswith(("http://", "https://")):
        raise SourceError(f"{uri}: a web server cannot be written to", fix="name a folder or a bucket")
    return Bucket(uri)


def _prefix(uri: str) -> str:
    return uri.partition("://")[2].rstrip("/")


def _rank(path: str) -> tuple[int, str]:
    """Weights, then what names and accompanies them, then what makes it a checkpoint."""
    return (0 if path.endswith((".safetensors", ".bin", ".onnx.data")) else 2 if path in _KEYSTONES else 1), path


def _in_the_way(there: Mapping[str, StoredObject], files: Mapping[str, Path]) -> Sequence[str]:
    """Return what must go first: the old keystone, and files that would be read as if they were of this one."""
    old = [path for path in there if path in SIDE_FILES or SIDE_PATTERN.fullmatch(path) or _WEIGHTS.fullmatch(path)]
    old += [path for path in _KEYSTONES if path in there and path in files and path not in old]
    gone = (path for path in old if path in _KEYSTONES or path not in files)
    return sorted(gone, key=lambda path: path not in _KEYSTONES)


def _require_arrived(stored: StoredObject | None, file: Path, uri: str) -> None:
    if stored is None or stored.size != file.stat().st_size:
        came = "nothing" if stored is None else f"{stored.size} bytes"
        raise SourceError(f"{uri}: {came} arrived of {file.stat().st_size} bytes", fix="run again with --force")
