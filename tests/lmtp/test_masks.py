"""Masks: what they hold, against plain sets of ids, and what they cost."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogsmith.errors import ProtocolError, RequestError
from cogsmith.lmtp import Allow, ExtendedGenerate, bitset, pack_mask, parse_batch, serialize_batch
from cogsmith.lmtp.masks import check, weight

VOCABULARY = 128_256
ids = st.sets(st.integers(0, 500), min_size=1) | st.sets(st.integers(0, 40), min_size=20)


def members(bits):
    """The ids of a bitset, by the definition of its layout."""
    return {i for i in range(8 * len(bits)) if bits[i // 8] & (1 << i % 8)}


@given(ids, st.integers(0, 600))
def test_a_packed_mask_holds_its_ids_below_the_size_and_no_other(wanted, size):
    bits = bitset(pack_mask(wanted), size)
    assert members(bits) == {i for i in wanted if i < size}
    assert len(bits) == (size + 7) // 8


@given(ids)
def test_both_forms_are_read_alike(wanted):
    ordered = sorted(wanted)
    ranges = Allow(ranges=tuple((i, i + 1) for i in ordered))
    packed = sum(1 << i for i in ordered).to_bytes(80, "little")
    bits = Allow(bits=base64.b64encode(packed).decode())
    assert members(bitset(ranges, 600)) == members(bitset(bits, 600)) == wanted


@given(ids)
def test_the_shorter_form_is_taken(wanted):
    allow = pack_mask(wanted)
    check(allow)
    assert (allow.ranges is None) != (allow.bits is None)
    runs = json.dumps(
        sorted((i, next(e for e in range(i, 999) if e not in wanted)) for i in wanted if i - 1 not in wanted)
    )
    as_bits = 4 * -(-(max(wanted) // 8 + 1) // 3)
    chosen = len(json.dumps(allow.ranges)) if allow.ranges else len(allow.bits)
    assert chosen == min(len(runs), as_bits)


def test_a_range_is_written_as_one():
    assert pack_mask(range(3, 100_000)) == Allow(ranges=((3, 100_000),))
    assert pack_mask([507, 505, 506, 505, 509]) == Allow(ranges=((505, 508), (509, 510)))


def test_a_random_half_of_a_vocabulary_costs_at_most_25_kilobytes():
    half = random.Random(0).sample(range(VOCABULARY), VOCABULARY // 2)
    operation = ExtendedGenerate(prompt=(1,), stream_id=1, allow=pack_mask(half))
    text = serialize_batch([operation])
    assert len(text) <= 25_000
    (read,) = parse_batch(text).operations
    assert members(bitset(read.allow, VOCABULARY)) == set(half)


def test_a_mask_takes_no_more_memory_than_the_vocabulary():
    """However far its ranges reach, and however far apart the ids are that are packed."""
    tracemalloc.start()
    far = pack_mask([3, 2**52])
    assert members(bitset(Allow(ranges=((5, 6), (7, 2**53 - 1))), 64)) == {5, *range(7, 64)}
    assert members(bitset(far, 64)) == {3}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert far.ranges == ((3, 4), (2**52, 2**52 + 1))


@pytest.mark.parametrize(("wanted", "words"), [((), "allows no id"), ((5, -1), "allows -1")])
def test_what_is_no_mask_is_not_packed(wanted, words):
    with pytest.raises(RequestError, match=words):
        pack_mask(wanted)


@pytest.mark.parametrize(
    ("allow", "words"),
    [
        (Allow(), "neither ranges nor bits"),
        (Allow(ranges=((1, 2),), bits="AQ=="), "both ranges and bits"),
        (Allow(ranges=()), "holds no id"),
        (Allow(bits=""), "holds no id"),
        (Allow(bits="AAAA"), "holds no id"),
        (Allow(bits="A"), "no base64"),
        (Allow(bits="AQ"), "no base64"),
        (Allow(bits="A Q="), "no base64"),
        (Allow(bits="é==="), "no base64"),
        (Allow(ranges=((5, 2),)), r"ranges\[0\] is \[5, 2\], which holds no id"),
        (Allow(ranges=((1, 2), (4, 4))), r"ranges\[1\] is \[4, 4\], which holds no id"),
        (Allow(ranges=((1, 5), (4, 8))), r"ranges\[1\] is \[4, 8\], and the one before it ends at 5"),
        (Allow(ranges=((6, 8), (1, 2))), r"ranges\[1\] is \[1, 2\], and the one before it ends at 8"),
    ],
)
def test_a_mask_that_is_ill_made_is_told_how(allow, words):
    with pytest.raises(ProtocolError, match=words) as caught:
        check(allow)
    assert caught.value.fix


def test_neighbouring_ranges_may_touch():
    check(Allow(ranges=((1, 5), (5, 8))))


def test_the_weight_of_a_mask_is_what_it_holds_in_memory():
    assert weight(Allow(ranges=((1, 2), (5, 9)))) == 2
    assert weight(Allow(bits=base64.b64encode(bytes(300)).decode())) == 300
