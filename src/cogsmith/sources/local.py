"""Weights on this machine: a folder, or one file. What identifies them is their content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cogsmith.errors import SourceError
from cogsmith.sources.base import Reporter, SourceFile
from cogsmith.sources.hashing import fingerprint, sha256_file
from cogsmith.sources.part import matching
from cogsmith.sources.safetensors_file import count_parameters, read_header

# Hidden, and all the same part of a checkpoint: torch.distributed's list of what is in which file.
_TORCH_INDEX = ".metadata"


class FolderLocation:
    """A folder's files, hidden ones left out, and those that match none of `patterns`, if there are some.

    Links to files are followed while they stay in the folder or, for a snapshot of the Hugging Face cache, in that
    cache, whose snapshots are made of links.
    """

    def __init__(self, folder: Path, cache: Path, patterns: Sequence[str] = ()) -> None:
        self.uri = f"path:{folder}"
        self._folder = folder
        self._cache = cache
        self._patterns = patterns

    def list(self) -> tuple[str, Sequence[SourceFile]]:
        """Return the content's fingerprint and all files. Raises SourceError, with every bad link at once."""
        root = _existing(self._folder)
        if not root.is_dir():
            raise SourceError(f"{self._folder} is not a folder", fix="name a folder, or a .gguf file")
        found = _walk(root)
        _refuse_bad_links(found, root)
        # Chosen before they are hashed: what is not wanted may be large.
        names = [SourceFile(path.relative_to(root).as_posix(), 0) for path in found if path.is_file()]
        files = [self._describe(root, root / file.path) for file in matching(self.uri, names, self._patterns)]
        return fingerprint(files), files

    def fetch(self, revision: str, files: Sequence[SourceFile], reporter: Reporter) -> dict[str, Path]:
        """Return where the files really lie. Raises SourceError for one that changed since it was listed."""
        root = _existing(self._folder)
        return {file.path: _unchanged(root / file.path, file, reporter, self._cache) for file in files}

    def parameters(self, revision: str, file: SourceFile) -> int | None:
        """Return how many parameters a safetensors file holds. Raises SourceError for a damaged one."""
        return count_parameters(read_header(self._folder / file.path))

    def _describe(self, root: Path, path: Path) -> SourceFile:
        return _describe(path, path.relative_to(root).as_posix(), self._cache)


class FileLocation:
    """A single file."""

    def __init__(self, file: Path, cache: Path) -> None:
        self.uri = f"path:{file}"
        self._file = file
        self._cache = cache

    def list(self) -> tuple[str, Sequence[SourceFile]]:
        """Return the content's fingerprint and the file. Raises SourceError."""
        if not _existing(self._file).is_file():
            raise SourceError(f"{self._file} is not a file", fix="name a folder, or a .gguf file")
        file = _describe(self._file, self._file.name, self._cache)
        return fingerprint([file]), [file]

    def fetch(self, revision: str, files: Sequence[SourceFile], reporter: Reporter) -> dict[str, Path]:
        """Return where the file really lies. Raises SourceError if it changed since it was listed."""
        return {file.path: _unchanged(self._file, file, reporter, self._cache) for file in files}


def _existing(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise SourceError(f"{path} does not exist", fix="check the path in `source`") from None


def _walk(root: Path) -> list[Path]:
    try:
        return list(_visible(root))
    except OSError as error:
        raise SourceError(f"{error.filename} cannot be read: {error.strerror}", fix="check its permissions") from error


def _visible(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") and path.name != _TORCH_INDEX:
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _visible(path)


def _refuse_bad_links(paths: Sequence[Path], root: Path) -> None:
    home = _home_of_links(root)
    faults = [fault for path in paths if path.is_symlink() and (fault := _link_fault(path, home))]
    if faults:
        raise SourceError("\n".join(faults), fix="put the file itself in place of the link, or remove the link")


def _home_of_links(root: Path) -> Path:
    """Return the folder that links may lead into: a cache snapshot is CACHE/models--ORG--REPO/snapshots/COMMIT."""
    return root.parents[2] if root.parent.name == "snapshots" and len(root.parents) > 2 else root


def _link_fault(link: Path, home: Path) -> str | None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return f"{link} is a link to {link.readlink()}, which is not there"
    if not target.is_relative_to(home):
        return f"{link} is a link that leaves the folder, to {target}"
    if target.is_dir():
        return f"{link} is a link to a folder; only links to files are followed"
    return None


def _describe(path: Path, name: str, cache: Path) -> SourceFile:
    real = path.resolve()
    return SourceFile(name, real.stat().st_size, sha256_file(real, cache=cache), cached=True)


def _unchanged(path: Path, file: SourceFile, reporter: Reporter, cache: Path) -> Path:
    real = _existing(path)
    if sha256_file(real, reporter, cache=cache) != file.sha256:
        raise SourceError(f"{path} changed since it was listed", fix="wait until it is complete, then run again")
    return real
