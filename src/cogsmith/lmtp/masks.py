"""Masks: sets of token ids, as `Allow` says them on the wire and as a bitset in memory.

Few runs of neighbouring ids are short as ranges; a random half of a vocabulary is short as bits. `pack_mask` takes
whichever is shorter. In memory a mask has one form only, a bitset: id i is in it where bit i % 8 of byte i // 8 is
set. It is made for a vocabulary of a given size, so no mask takes more memory than its text or that size.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Iterable, Iterator

from cogsmith.errors import ProtocolError, RequestError
from cogsmith.lmtp.extended import Allow, Range

_FIX = 'give {"ranges": [[from, to], ...]} or {"bits": base64}, with one id at least'


def pack_mask(ids: Iterable[int]) -> Allow:
    """Return the mask that allows `ids` and no other, in its shorter form.

    Repeated ids count once; the order does not matter. Raises RequestError where there are none, or negative ones.
    """
    ordered = sorted(set(ids))
    if not ordered:
        raise RequestError("the mask allows no id: nothing could follow", fix="allow one id at least")
    if ordered[0] < 0:
        raise RequestError(f"the mask allows {ordered[0]}, which is no token id", fix="allow whole numbers from 0")
    ranges, size = _ranges(ordered), ordered[-1] + 1
    if len(json.dumps(ranges)) <= _base64_length(_num_bytes(size)):
        return Allow(ranges=ranges)
    return Allow(bits=base64.b64encode(_filled(ranges, size)).decode("ascii"))


def bitset(allow: Allow, size: int) -> bytes:
    """Return the mask over ids 0 to `size` - 1: a bit per id, in ceil(size / 8) bytes. Ids beyond are left out.

    Raises ProtocolError for a mask that `check` refuses.
    """
    if allow.ranges is not None:
        return bytes(_filled(allow.ranges, size))
    length = _num_bytes(size)
    bits = bytearray(_decode(allow.bits or "")[:length].ljust(length, b"\0"))
    if size % 8:
        bits[-1] &= (1 << size % 8) - 1
    return bytes(bits)


def check(allow: Allow) -> None:
    """Raises ProtocolError where `allow` is in both forms or neither, or its form is ill-made, or it allows no id."""
    if (allow.ranges is None) == (allow.bits is None):
        given = "neither ranges nor bits" if allow.ranges is None else "both ranges and bits"
        raise ProtocolError(f"allow has {given}", fix=_FIX)
    if allow.bits is not None:
        empty = not any(_decode(allow.bits))
    else:
        empty = not allow.ranges
        _check_order(allow.ranges or ())
    if empty:
        raise ProtocolError("allow holds no id, so nothing could follow", fix=_FIX)


def weight(allow: Allow) -> int:
    """How large a mask is, for a limit: its ranges, or the bytes of its bits."""
    return len(allow.ranges) if allow.ranges is not None else len(allow.bits or "") * 3 // 4


def _check_order(ranges: Iterable[Range]) -> None:
    end = 0
    for index, (start, stop) in enumerate(ranges):
        if start >= stop:
            raise ProtocolError(
                f"allow.ranges[{index}] is [{start}, {stop}], which holds no id",
                fix="give [from, to] with from below to",
            )
        if start < end:
            raise ProtocolError(
                f"allow.ranges[{index}] is [{start}, {stop}], and the one before it ends at {end}",
                fix="give ranges in ascending order that do not overlap",
            )
        end = stop


def _ranges(ids: list[int]) -> tuple[Range, ...]:
    """Return the runs of neighbours among ascending ids."""
    starts = [i for before, i in itertools.pairwise([-2, *ids]) if i != before + 1]
    ends = [i + 1 for i, after in itertools.pairwise([*ids, -2]) if after != i + 1]
    return tuple(zip(starts, ends, strict=True))


def _filled(ranges: Iterable[Range], size: int) -> bytearray:
    """Return a bitset of `size` bits with these ranges set, cut at `size`."""
    bits = bytearray(_num_bytes(size))
    for start, stop in _cut(ranges, size):
        first, last = start // 8, (stop - 1) // 8
        head, tail = 0xFF << start % 8 & 0xFF, 0xFF >> 7 - (stop - 1) % 8
        if first == last:
            bits[first] |= head & tail
        else:
            bits[first] |= head
            bits[first + 1 : last] = b"\xff" * (last - first - 1)
            bits[last] |= tail
    return bits


def _cut(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    return ((start, min(stop, size)) for start, stop in ranges if start < size)


def _decode(bits: str) -> bytes:
    """Raises ProtocolError for what is no base64."""
    try:
        return base64.b64decode(bits, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(
            f"allow.bits is no base64: {error}", fix="give a bitset in base64, padded with ="
        ) from error


def _num_bytes(num_bits: int) -> int:
    return -(-num_bits // 8)


def _base64_length(num_bytes: int) -> int:
    return -(-num_bytes // 3) * 4
