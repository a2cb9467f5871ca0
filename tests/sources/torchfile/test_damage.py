"""Files that are damaged, or made to exhaust whoever reads them: each ends in a SourceError, and soon."""

from __future__ import annotations

import struct
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from cogsmith.errors import SourceError
from cogsmith.sources.torchfile import load

from .pickles import archive, called, named, number, pickled, tensor, text, whole


def attempt(path: Path) -> None:
    """Load a file that must be refused."""
    with pytest.raises(SourceError) as caught:
        load(path)
    assert str(path) in caught.value.message
    assert caught.value.fix


STORAGE = b"(" + text("storage") + named("torch", "FloatStorage")


@pytest.mark.parametrize(
    "asked",
    [
        text("storage"), b"N", number(3), b")", whole(1, 2, 3, 4, 5), b"(" + text("storage") + b"t",
        b"(" + text("module") + named("torch", "FloatStorage") + text("0") + text("cpu") + number(2) + b"t",
        b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + number(2) + b"t",
        STORAGE + number(0) + text("cpu") + number(2) + b"t",
        STORAGE + text("../../etc/passwd") + text("cpu") + number(2) + b"t",
        STORAGE + text("0") + text("cpu") + number(-2) + b"t",
        STORAGE + text("0") + text("cpu") + number(2**70) + b"t",
        STORAGE + text("0") + text("cpu") + number(3) + b"t",
        STORAGE + text("0") + text("cpu") + b"\x88t",
    ],
)  # fmt: skip
def test_odd_persistent_ids(tmp_path: Path, asked: bytes):
    attempt(archive(tmp_path / "x.pt", pickled(asked + b"Q"), {"data/0": bytes(8)}))


SHAPES = {
    "one too many": (2, 0, whole(3), whole(1)),
    "an offset past the end": (2, 2, whole(1), whole(1)),
    "a negative offset": (2, -1, whole(1), whole(1)),
    "a stride past the end": (4, 0, whole(2, 2), whole(3, 1)),
    "a negative stride": (4, 3, whole(2), whole(-1)),
    "a negative size": (4, 0, whole(-1), whole(1)),
    "two of one, one of the other": (4, 0, whole(2, 2), whole(1)),
    "sizes that overflow": (4, 0, whole(2**62, 2**62, 4), whole(1, 1, 1)),
    "a huge size of nothing": (4, 0, whole(2**63, 0), whole(0, 0)),
    "an expansion without end": (4, 0, whole(2**40), whole(0)),
    "a list for a shape": (4, 0, b"]" + number(1) + b"a", whole(1)),
    "a boolean for a size": (4, 0, b"(\x88t", whole(1)),
    "65 dimensions": (4, 0, whole(*[1] * 65), whole(*[1] * 65)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_sizes_that_lie(tmp_path: Path, case: str):
    count, offset, shape, strides = SHAPES[case]
    content = pickled(tensor(count, offset, shape, strides))
    attempt(archive(tmp_path / "x.pt", content, {"data/0": bytes(4 * count)}))


BOMBS = {
    "a string longer than the file": b"\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "bytes longer than the file": b"\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "a bytearray longer than the file": b"\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a negative length": b"\x8b\xff\xff\xff\xff.",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b")" + b"\x85" * 300_000 + b".",
    "a deep key": b"})" + b"\x85" * 300_000 + b"Ns.",
    "a deep member": b"\x8f()" + b"\x85" * 300_000 + b"\x90.",
    "a list in itself": b"]q\x00h\x00a.",
    "a dict in itself": b"}q\x00" + text("a") + b"h\x00s.",
    "an unhashable key": b"}]Ns.",
    "an empty pickle": b"",
    "no end": b"N",
    "nothing to return": b".",
    "an empty stack": b"\x85.",
    "no mark": b"t.",
    "a memo slot that is empty": b"h\x07.",
    "no text": b"X\x02\x00\x00\x00\xff\xff.",
    "an unknown opcode": b"\xff.",
    "a call of a string": called(text("x")) + b".",
    "a call of an object": called(called(named("mine", "Cls"))) + b".",
    "a call with a dict": named("mine", "Cls") + b"}R.",
    "a name that is none": b"cos; import os\nsystem\n.",
    "bytes by another codec": called(named("_codecs", "encode"), text("x"), text("rot13")) + b".",
    "a bytearray of a number": called(named("builtins", "bytearray"), number(2**40)) + b".",
    "a range as a set": called(named("builtins", "set"), called(named("builtins", "range"), number(2**60))) + b".",
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_and_nonsense(tmp_path: Path, case: str):
    attempt(archive(tmp_path / "x.pt", BOMBS[case]))


def test_a_high_memo_slot_costs_nothing(tmp_path: Path):
    """Python's own Unpickler reserves and clears 32 GB for this."""
    assert load(archive(tmp_path / "x.pt", b"Nr\xff\xff\xff\x7f.")) is None


def test_shared_lists_are_not_walked_twice(tmp_path: Path):
    """Lists of the list before, ten times: a thousand million million in all."""
    body = b"](" + b"N" * 10 + b"eq\x00"
    for slot in range(15):
        body += b"](" + bytes([0x68, slot]) * 10 + b"e" + bytes([0x71, slot + 1])
    assert len(load(archive(tmp_path / "x.pt", pickled(body)))) == 10


def test_cuts_and_changed_bytes_are_survived(tmp_path: Path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(4.0), "v": torch.__version__, "o": OrderedDict(b=b"1")}, path)
    content = path.read_bytes()
    for cut in range(0, len(content), 19):
        path.write_bytes(content[:cut])
        attempt(path)
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
        with suppress(SourceError):
            load(path)
