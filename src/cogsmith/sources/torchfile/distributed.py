"""Folders of torch.distributed.checkpoint (FSDP since PyTorch 2), put together without running what is in them.

`.metadata` names every tensor, with the part of it that lies in each place of the files `__RANK_N.distcp`; there, each
part is a small file of torch.save, and so is every other value. Nested dicts were flattened, with the way to each leaf
in `planner_data`.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cogsmith.errors import SourceError
from cogsmith.sources.base import Task
from cogsmith.sources.silent import Silent
from cogsmith.sources.torchfile.mapping import MappedFile
from cogsmith.sources.torchfile.shards import METADATA, refuse_other_shards

if TYPE_CHECKING:
    import torch

    from cogsmith.sources.torchfile.layout import Entry, Piece

COPIED_BYTES = 2**20
"""Tensors up to this are copied also where they lie in one piece, so that few files stay open."""
_ALIGNMENT = 64
_MAX_LIST = 1_000_000
_SHARD = ".distcp"
_FIX = "fetch the whole folder again"

Wanted = Callable[[tuple[str | int, ...]], bool]


def load_sharded(
    places: Mapping[str, Path],
    *,
    wanted: Wanted | None = None,
    scratch: Path | None = None,
    task: Task | None = None,
) -> Any:
    """Return what torch.distributed.checkpoint saved into the files `places` (by their relative POSIX paths).

    It comes nested as it was, dicts with keys that are strings, as torch's own reader gives it. `wanted` chooses by the
    keys that lead to a leaf, all by default; `task` counts the leaves. Tensors in one piece are views of the mapped
    files, as `torchfile.load` gives them. Those in many are put together, in memory, or in a file of the folder
    `scratch` that is mapped, and gone when the tensors are.

    Raises SourceError where a file is missing, cut short, not the one that was saved, or asks for something harmful.
    """
    from cogsmith.sources.torchfile.layout import read_layout
    from cogsmith.sources.torchfile.reading import explained

    metadata = _metadata_file(places)
    with explained(places[metadata]):
        entries, named = read_layout(places[metadata].read_bytes())
    folder = metadata.removesuffix(METADATA)
    chosen = [entry for entry in entries if wanted is None or wanted(entry.path)]
    files = {piece.file: places.get(folder + piece.file) for entry in chosen for piece in entry.pieces}
    _check_files(files, entries)
    _refuse_others([name.removeprefix(folder) for name in places if name.startswith(folder)], named)
    values = _Assembly(chosen, scratch).read({name: path for name, path in files.items() if path}, task or Silent())
    with explained(places[metadata]):
        return _nested(chosen, values)


def _metadata_file(places: Mapping[str, Path]) -> str:
    found = [name for name in places if PurePosixPath(name).name == METADATA]
    if len(found) == 1:
        return found[0]
    refuse_other_shards(places)
    if found:
        raise SourceError(
            f"there are several sharded checkpoints: {', '.join(found)[:200]}", fix="name one of the folders"
        )
    raise SourceError(
        "the sharded checkpoint has no file .metadata, which says what is in the others",
        fix="fetch the whole folder again; a tool may leave out files whose names begin with a dot",
    )


def _refuse_others(present: Iterable[str], named: frozenset[str]) -> None:
    """Refuse shards that `.metadata` does not name: they are another checkpoint's, or it is."""
    others = sorted(name for name in present if name.endswith(_SHARD) and name not in named)
    if others:
        raise SourceError(
            f"{', '.join(others)[:300]} {'is' if len(others) == 1 else 'are'} of another sharded checkpoint: "
            ".metadata does not name it",
            fix="remove it, or fetch the whole folder again",
        )


def _check_files(files: Mapping[str, Path | None], entries: Iterable[Entry]) -> None:
    """Check that each file is there and as long as it was: all faults at once, before anything is read."""
    missing = sorted(name for name, path in files.items() if path is None or not path.is_file())
    if missing:
        raise SourceError(f"the sharded checkpoint lacks {', '.join(missing)[:300]}", fix=_FIX)
    ends: dict[str, int] = defaultdict(int)
    for entry in entries:
        for piece in entry.pieces:
            ends[piece.file] = max(ends[piece.file], piece.end)
    sizes = {name: path.stat().st_size for name, path in files.items() if path}
    wrong = [f"{name} has {size} bytes in place of {ends[name]}" for name, size in sizes.items() if size != ends[name]]
    if wrong:
        raise SourceError(
            f"files of the sharded checkpoint are cut short, or another's: {'; '.join(wrong)[:500]}", fix=_FIX
        )


class _Assembly:
    """The values of `entries`, read file by file."""

    def __init__(self, entries: Sequence[Entry], scratch: Path | None) -> None:
        self._values: dict[str, Any] = {}
        self._entries = entries
        self._put_together = [entry for entry in entries if entry.dtype and _is_put_together(entry)]
        self._allocate(scratch)

    def read(self, files: Mapping[str, Path], task: Task) -> dict[str, Any]:
        """Return each entry's value by its name. Raises SourceError."""
        from cogsmith.sources.torchfile.reading import explained

        by_file: dict[str, list[tuple[Entry, Piece]]] = defaultdict(list)
        for entry in self._entries:
            for piece in entry.pieces:
                by_file[piece.file].append((entry, piece))
        for name, pieces in by_file.items():
            with explained(files[name]), MappedFile(files[name]) as file:
                for entry, piece in pieces:
                    self._take(entry, piece, file)
                    task.advance(1)
        return self._values

    def _take(self, entry: Entry, piece: Piece, file: MappedFile) -> None:
        from cogsmith.sources.torchfile.reading import read_section

        value = read_section(file, piece.start, piece.size)
        if entry.dtype is not None:
            _check_piece(entry, piece, value)
            if entry.name in self._values:
                target = self._values[entry.name]
                for axis, (start, length) in enumerate(zip(piece.offsets, piece.shape, strict=True)):
                    target = target.narrow(axis, start, length)
                target.copy_(value)
                return
        self._values[entry.name] = value

    def _allocate(self, scratch: Path | None) -> None:
        """Make room for all tensors that are put together: one block, in memory or in a file without a name."""
        import torch

        starts = [0]
        for entry in self._put_together:
            starts.append(starts[-1] + -(-entry.size // _ALIGNMENT) * _ALIGNMENT)
        block = _mapped(starts[-1], scratch) if scratch and starts[-1] else torch.empty(starts[-1], dtype=torch.uint8)
        for entry, start in zip(self._put_together, starts, strict=False):
            assert entry.dtype is not None
            self._values[entry.name] = block[start : start + entry.size].view(entry.dtype).view(entry.shape)


def _is_put_together(entry: Entry) -> bool:
    return len(entry.pieces) != 1 or entry.size <= COPIED_BYTES


def _mapped(size: int, scratch: Path) -> torch.Tensor:
    """Return `size` bytes of a new file in `scratch`. Its room is taken at once: to run out later ends the process."""
    import torch

    with tempfile.TemporaryFile(dir=scratch) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise SourceError(
                f"there is no room to put the sharded checkpoint together: {size} bytes in {scratch}: {error.strerror}",
                fix="make room on that disk",
            ) from error
        return torch.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_WRITE), dtype=torch.uint8)


def _check_piece(entry: Entry, piece: Piece, value: Any) -> None:
    import torch

    if not isinstance(value, torch.Tensor) or value.dtype != entry.dtype or tuple(value.shape) != piece.shape:
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise SourceError(
            f"{piece.file} is not the file that was saved: at {entry.name} it has {found}, "
            f"and .metadata says {entry.dtype} {list(piece.shape)}",
            fix=_FIX,
        )


class _Node(dict[str | int, Any]):
    """A dict, or a list by its places: which of them, its keys say in the end."""


def _nested(entries: Iterable[Entry], values: Mapping[str, Any]) -> Any:
    """Put each value where its path leads. A number in a path is a place in a list. Raises ValueError."""
    root = _Node()
    for entry in entries:
        node = root
        for key in entry.path[:-1]:
            node = node.setdefault(key, _Node())
            if type(node) is not _Node:
                raise ValueError(f"{entry.name} lies within another value")
        if entry.path[-1] in node:
            raise ValueError(f"{entry.name} lies where another value is")
        node[entry.path[-1]] = values[entry.name]
    return _finished(root)


def _finished(node: _Node) -> Any:
    items = {key: _finished(value) if type(value) is _Node else value for key, value in node.items()}
    places = [key for key in items if type(key) is int]
    if not places:
        return items
    if len(places) != len(items) or min(places) < 0 or max(places) > _MAX_LIST:
        raise ValueError("a list in it has no proper places")
    # What was empty when it was saved has no entry.
    return [items.get(place) for place in range(max(places) + 1)]
