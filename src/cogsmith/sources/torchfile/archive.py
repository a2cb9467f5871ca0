"""The zip that `torch.save` writes since PyTorch 1.6: one folder of records, all stored as they are.

`data.pkl` is the pickle, `data/KEY` the bytes of a storage, `byteorder` their order (absent before PyTorch 2.1).
The central directory is read by the standard library; where each record's bytes lie follows from its local header.
https://docs.pytorch.org/docs/2.13/notes/serialization.html#torch-save-and-torch-load-file-formats
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import IO

from cogsmith.sources.torchfile.mapping import MappedFile, Section

MAX_PICKLE_BYTES = 2**28
"""The pickle holds names and shapes; a quarter of a gigabyte is beyond any."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1


class OtherKind(ValueError):
    """A sound file, perhaps, and not one that can be read here. `fix` says what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record's bytes lie in the file."""

    start: int
    size: int


class Archive:
    """The records of one zip: `size` bytes of `file` from `start`."""

    def __init__(self, file: MappedFile, start: int, size: int) -> None:
        """Read the directory. Raises zipfile.BadZipFile or ValueError where it is unsound."""
        self.file = file
        stream = io.BufferedReader(Section(file, start, size))
        with zipfile.ZipFile(stream) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            end_of_records = content.start_dir
        self._folder = _find_folder([entry.filename for entry in entries])
        self._records = _locate(entries, stream, start, end_of_records)

    def pickle(self) -> bytes:
        """Return the pickle. Raises ValueError where the file's numbers are big-endian, or it is impossibly long."""
        order = self._records.get(f"{self._folder}byteorder")
        if order is not None and self._bytes(order) != b"little":
            raise OtherKind(
                "it was saved on a big-endian machine", "load it with PyTorch on any other, and save it again"
            )
        record = self._records[f"{self._folder}data.pkl"]
        if record.size > MAX_PICKLE_BYTES:
            raise ValueError(f"its pickle alone has {record.size} bytes")
        return self._bytes(record)

    def storage(self, key: str) -> Record:
        """Return where the storage `key` lies. Raises ValueError where there is none."""
        record = self._records.get(f"{self._folder}data/{key}")
        if record is None:
            raise ValueError(f"it has no record data/{key[:40]}, of which its pickle speaks")
        return record

    def _bytes(self, record: Record) -> bytes:
        return self.file.read(record.start, record.size)


def _find_folder(names: list[str]) -> str:
    """Return the folder of all records, with its slash: it is named after the file that was saved, or `archive`."""
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    folder = pickles[0].removesuffix("data.pkl") if pickles else ""
    if f"{folder}constants.pkl" in names:
        raise OtherKind(
            "it is a TorchScript program (torch.jit.save), which holds code beside its weights",
            "save the model's state_dict() by torch.save",
        )
    if len(set(pickles)) != 1:
        raise OtherKind(
            "it is a zip, but not of torch.save: it does not hold one data.pkl in a folder",
            "name the file that torch.save wrote; unpack an archive around it",
        )
    return folder


def _locate(entries: list[zipfile.ZipInfo], stream: IO[bytes], start: int, end: int) -> dict[str, Record]:
    """Return each record's place in the file, of which `stream` is the part from `start`; `end` counts from there too.

    Raises ValueError where two records share a name or bytes, or one is not stored plainly.
    """
    records: dict[str, Record] = {}
    reached = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name = entry.filename
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise OtherKind(
                f"its record {name[:80]!r} is compressed or encrypted, which torch does not do",
                "unpack it, and pack it without compression: zip -0 -r",
            )
        stream.seek(entry.header_offset)
        mark, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
        begin = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        reaches = begin + entry.file_size
        if mark != b"PK\x03\x04" or entry.header_offset < reached or reaches > end or name in records:
            raise ValueError(f"its record {name[:80]!r} is not where its directory says")
        if entry.file_size != entry.compress_size:
            raise ValueError(f"its record {name[:80]!r} has two sizes")
        records[name] = Record(start + begin, entry.file_size)
        reached = reaches
    return records
