"""Which files are a Composer checkpoint, by their names, and which of several is meant.

Composer saves `ep{epoch}-ba{batch}-rank{rank}.pt`, links `latest-rank{rank}.pt` to the last one, and packs either
where the name ends so (composer/utils/checkpoint.py, composer/callbacks/checkpoint_saver.py). On object stores, which
have no links, `latest-rank0.pt.symlink` is a text with the name of what is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cogsmith.errors import SourceError
from cogsmith.sources.base import SourceFile
from cogsmith.sources.importer import Listing

METADATA = "composer_metadata.json"
"""The file that says what the newest layout holds, beside its folder `model`."""

LINK = ".symlink"
_LATEST = "latest-rank0"

_PACKED = r"\.(?:tar|tgz|tar\.(?:gz|bz2|xz|lzma)|gz|bz2|xz|lzma|zst|lz4|lzo)"
_SAVED = re.compile(rf"(?P<run>ep(?P<epoch>\d+)-ba(?P<batch>\d+)|latest)-rank(?P<rank>\d+)(?:\.pt)?(?:{_PACKED})?")
_ANY_FILE = re.compile(rf".+\.pt(?:{_PACKED})?|.+{_PACKED}")
_SHARD = re.compile(r"__\d+_\d+\.distcp")
_SHARD_INDEX = ".metadata"
_RANK_FILE = re.compile(r"(?:.*_)?rank\d+\.pt")
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Saved:
    """One checkpoint among a source's files: the name that a user would give it, and its files."""

    name: str
    files: tuple[SourceFile, ...]


def is_checkpoint(files: Iterable[SourceFile]) -> bool:
    """Tell by names alone whether there is a Composer checkpoint among `files`, or whether the only one may be it."""
    files = list(files)
    if len(files) == 1 and re.search(r"\.pt(?:\.|$)", files[0].path):
        return True
    return any(
        _SAVED.fullmatch(name) or name == METADATA or _SHARD.fullmatch(name)
        for name in (file.path.rpartition("/")[2].removesuffix(LINK) for file in files)
    )


def choose(listing: Listing) -> tuple[SourceFile, ...]:
    """Return the files of the checkpoint that is meant: the only one, or what `latest` stands for.

    Raises SourceError where there is none, where there are several, or where it lies in parts that cannot be read.
    """
    by_path = {file.path: file for file in listing.files}
    _refuse_parts_by_rank(by_path, listing.uri)
    found = _found(by_path)
    latest = {name: saved for name, saved in found.items() if _name(name).startswith(_LATEST)}
    links = [file for path, file in by_path.items() if path.endswith(LINK)]
    if not latest and found and len(links) == 1:
        # What it says is known only when it is here; the importer then compares.
        newest = max(found.values(), key=_age)
        latest = {newest.name: Saved(newest.name, (*newest.files, *links))}
    meant = latest or found
    if len(meant) != 1:
        raise _none_or_several(listing.uri, meant, by_path)
    (chosen,) = meant.values()
    _refuse_incomplete(chosen, listing.uri)
    return chosen.files


def shard_folder(paths: Iterable[str]) -> str | None:
    """Return the folder of the shards among `paths`, "" for the top; None where there are none."""
    return next((_folder(path) for path in paths if _SHARD.fullmatch(_name(path))), None)


def _found(by_path: Mapping[str, SourceFile]) -> dict[str, Saved]:
    """Return the checkpoints by name: files, folders of shards, and folders of the newest layout."""
    newest = {_folder(path) for path in by_path if _name(path) == METADATA}
    found = {folder or METADATA: _newest(folder, by_path) for folder in newest}
    inside = [f"{folder}/" if folder else "" for folder in newest]
    rest = {path: file for path, file in by_path.items() if not path.startswith(tuple(inside))} if newest else by_path
    for folder in sorted({_folder(path) for path in rest if _SHARD.fullmatch(_name(path))}):
        members = [file for path, file in rest.items() if _folder(path) == folder and _is_shard_file(path)]
        found[folder or _SHARD_INDEX] = Saved(folder or _SHARD_INDEX, tuple(members))
    saved = [path for path in rest if _SAVED.fullmatch(_name(path))]
    if not found and not saved:
        saved = [path for path in rest if _ANY_FILE.fullmatch(_name(path))]
    return found | {path: Saved(path, (rest[path],)) for path in saved}


def _newest(folder: str, by_path: Mapping[str, SourceFile]) -> Saved:
    at = f"{folder}/" if folder else ""
    members = [by_path[f"{at}{METADATA}"]]
    members += [
        file for path, file in by_path.items() if path == f"{at}model/model.pt" or _is_shard_file(path, f"{at}model")
    ]
    return Saved(folder or METADATA, tuple(members))


def _is_shard_file(path: str, folder: str | None = None) -> bool:
    is_one = _name(path) == _SHARD_INDEX or bool(_SHARD.fullmatch(_name(path)))
    return is_one and (folder is None or _folder(path) == folder)


def _refuse_parts_by_rank(by_path: Mapping[str, SourceFile], uri: str) -> None:
    """Raise SourceError for a file per process, as FSDP of torch 1.13 and DeepSpeed save: their parts have no map."""
    ranks = {match["rank"] for path in by_path if (match := _SAVED.fullmatch(_name(path)))}
    by_folder = [path for path in by_path if _RANK_FILE.fullmatch(_name(path)) and not _SAVED.fullmatch(_name(path))]
    if len(ranks) > 1 or len(by_folder) > 1:
        raise SourceError(
            f"{uri} has a checkpoint in parts, a file for each process, as torch 1.13 and DeepSpeed save it",
            fix="load it in Composer and save it whole: fsdp_config state_dict_type 'full'",
        )


def _refuse_incomplete(saved: Saved, uri: str) -> None:
    names = {_name(file.path) for file in saved.files}
    if any(_SHARD.fullmatch(name) for name in names) and _SHARD_INDEX not in names:
        raise SourceError(
            f"{uri} has shards and no {_SHARD_INDEX}, which says what is in them",
            fix="copy the whole folder, hidden files too",
        )
    if METADATA in names and len(names) == 1:
        raise SourceError(f"{uri} has {METADATA} and no model/ beside it", fix="copy the whole folder")


def _none_or_several(uri: str, found: Mapping[str, Saved], by_path: Mapping[str, SourceFile]) -> SourceError:
    if not found:
        there = ", ".join(sorted(by_path)[:_SHOWN]) or "nothing"
        return SourceError(
            f"{uri} holds no Composer checkpoint; there is: {there}",
            fix="name the file that Composer saved, such as ep0-ba2000-rank0.pt, or its folder",
        )
    names = sorted(found, key=lambda name: _age(found[name]))
    first = "" if len(names) <= _SHOWN else "…, "
    return SourceError(
        f"{uri} holds {len(names)} checkpoints: {first}{', '.join(names[-_SHOWN:])}",
        fix=f'name one of them: "{uri}/{names[-1]}"',
    )


def _age(saved: Saved) -> list[int]:
    """Return the epoch and the batch in a checkpoint's name, to tell the later one."""
    match = re.search(r"ep(\d+)-ba(\d+)", saved.name)
    return [int(number) for number in match.groups()] if match else [-1]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
