"""What a file is that is no zip of torch's, told by its first bytes, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from cogsmith.errors import SourceError

_LEGACY_PICKLES = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x04\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
"""The pickled magic number of torch's format before 1.6: `torch.serialization.MAGIC_NUMBER`."""
_SAVE_AGAIN = "load it with PyTorch (weights_only=True) where it came from, and torch.save it again"
_FETCH_AGAIN = "fetch the file itself: git lfs pull, or the download link in place of the page's"
_UNPACK = "name it as it was saved: this reads compressed files where the format allows them"

_FIRST_BYTES: tuple[tuple[bytes, str, str], ...] = (
    *((first, "a file of PyTorch before 1.6, or of its old format", _SAVE_AGAIN) for first in _LEGACY_PICKLES),
    (b"version https://git-lfs", "a Git LFS pointer in place of the file", _FETCH_AGAIN),
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed by lz4", _UNPACK),
    (b"\x89LZO\x00", "compressed by lzop", _UNPACK),
    (b"GGUF", "a GGUF file", 'set format = "gguf"'),
    (b"\x93NUMPY", "a NumPy array", "name the file that torch.save wrote"),
    (b"\x89HDF", "an HDF5 file", "name the file that torch.save wrote"),
    (b"\x80", "a bare pickle, and no file of torch.save", _SAVE_AGAIN),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_TAR_MARK, _TAR_AT = b"ustar", 257


def refuse_foreign(path: Path, first: bytes) -> None:
    """Raise SourceError, which says what the file is, where `first` (512 bytes) cannot begin a zip."""
    if first.startswith(_ZIP):
        return
    kind, fix = _kind(first)
    raise SourceError(f"{path} cannot be read as weights: it is {kind}", fix=fix)


def _kind(first: bytes) -> tuple[str, str]:
    for mark, kind, fix in _FIRST_BYTES:
        if first.startswith(mark):
            return kind, fix
    text = first.lstrip().lower()
    if not first:
        return "empty", "fetch or save the file again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page or a server's message in place of the file", _FETCH_AGAIN
    if text.startswith(b"{") or first[8:9] == b"{":
        return "a JSON or safetensors file", "name the file that torch.save wrote"
    if first[_TAR_AT : _TAR_AT + len(_TAR_MARK)] == _TAR_MARK:
        return "a tar archive, which PyTorch before 0.4 wrote too", _SAVE_AGAIN
    return f"no zip, as torch.save writes them: it begins with {first[:8]!r}", "fetch or save the file again"
