"""Stops, against a search in the whole continuation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogsmith.detokenize import Stopping


def decode(ids):
    """A byte a token."""
    return bytes(ids).decode(errors="replace")


def completes(stops, tokens, *, min_tokens=0):
    """The number of the token that completed a stop, and the stop; None for none."""
    stopping = Stopping(stops, min_tokens, decode)
    for number, token in enumerate(tokens, start=1):
        stop = stopping.push(token)
        if stop is not None:
            return number, stop
    return None


letters = st.sampled_from(b"ab")
sequences = st.lists(letters, min_size=1, max_size=3).map(tuple)


@given(st.lists(letters, max_size=12), st.lists(sequences, max_size=3), st.integers(0, 6))
def test_a_sequence_of_ids_counts_where_it_ends_after_the_first_tokens(tokens, stops, min_tokens):
    found = completes(stops, tokens, min_tokens=min_tokens)
    ends = [
        (end, stop)
        for end in range(min_tokens + 1, len(tokens) + 1)
        for stop in stops
        if len(stop) <= end and tokens[end - len(stop) : end] == list(stop)
    ]
    assert found == (ends[0] if ends else None)


@given(st.lists(letters, max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.integers(0, 6))
def test_a_text_counts_where_it_ends_after_the_first_tokens(tokens, stops, min_tokens):
    found = completes(stops, tokens, min_tokens=min_tokens)
    text = decode(tokens)
    ends = [end for end in range(min_tokens + 1, len(tokens) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    assert (found[0] if found else None) == (ends[0] if ends else None)
    if found:
        assert text[: found[0]].endswith(found[1])


def test_a_text_may_lie_in_pieces_of_tokens():
    pieces = ["hel", "lo", " world"]
    stopping = Stopping(["lo w"], 0, lambda ids: "".join(pieces[i] for i in ids))
    assert [stopping.push(i) for i in range(3)] == [None, None, "lo w"]


def test_a_text_is_complete_with_the_last_byte_of_its_last_character():
    tokens = "naïve 日本".encode()
    assert completes(["本"], tokens) == (len(tokens), "本")
    assert completes(["ï"], tokens) == (4, "ï")


def test_ids_come_before_texts_that_the_same_token_completes():
    assert completes(["b", (97, 98)], b"ab") == (2, (97, 98))
    assert completes([(98,), (97, 98)], b"ab") == (2, (98,))
    assert completes(["b", "ab"], b"ab") == (2, "ab")


def test_ids_need_no_tokenizer():
    stopping = Stopping([(7, 8)], 0, None)
    assert [stopping.push(token) for token in (8, 7, 8)] == [None, None, (7, 8)]


@pytest.mark.parametrize("tokens", [b"", b"aaaa"])
def test_without_stops_nothing_ends(tokens):
    assert completes([], tokens) is None
