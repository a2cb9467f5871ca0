"""Stop strings, against plain search in the whole text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogsmith.detokenize import StopStrings, TextDecoder

TEXT = st.text("ab\n", max_size=12)


@given(st.lists(TEXT, max_size=8), st.lists(TEXT.filter(bool), max_size=3))
def test_what_is_shown_is_the_text_before_the_first_stop(pieces, stops):
    finder = StopStrings(stops)
    shown = "".join(finder.push(piece) for piece in pieces) + finder.flush()
    starts = [start for start in map("".join(pieces).find, stops) if start >= 0]
    # A stop that is whole ends the text, even where a longer one begun earlier could still have come.
    assert (finder.found is not None) == bool(starts)
    if not starts:
        assert shown == "".join(pieces)
    else:
        assert "".join(pieces).startswith(shown + finder.found)
        assert not any(stop in shown for stop in stops)


@pytest.mark.parametrize(("pieces", "shown"), [(["a#", "##b"], ["a", ""]), (["a#", "b"], ["a", "#b"]), (["###"], [""])])
def test_a_begun_stop_is_held_back_until_it_is_decided(pieces, shown):
    finder = StopStrings(["###"])
    assert [finder.push(piece) for piece in pieces] == shown


def test_a_stop_counts_only_once_it_is_armed():
    finder = StopStrings(["\n"])
    assert finder.push("a\nb", armed=False) == "a\nb"
    assert finder.push("c\nd") == "c"
    assert finder.found == "\n"


def test_a_first_space_is_kept_where_the_tokenizer_drops_a_texts_first_one():
    pieces = [" once", " upon", " a"]

    def decode(ids):
        return "".join(pieces[i] for i in ids).removeprefix(" ")

    decoder = TextDecoder(decode, prompt=[0])
    assert [decoder.push(1), decoder.push(2)] == [" upon", " a"]


def test_a_first_space_is_kept_behind_a_token_without_text():
    pieces = [" once", "", " upon"]

    def decode(ids):
        return "".join(pieces[i] for i in ids).removeprefix(" ")

    decoder = TextDecoder(decode, prompt=[0])
    assert [decoder.push(1), decoder.push(1), decoder.push(2), decoder.push(0)] == ["", "", " upon", " once"]


def test_bytes_that_are_no_character_are_not_decoded_again_and_again():
    longest = 0

    def decode(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return bytes(ids).decode(errors="replace")

    decoder = TextDecoder(decode)
    text = "".join(decoder.push(0x80) for _ in range(1000)) + decoder.flush()
    assert text == "\N{REPLACEMENT CHARACTER}" * 1000
    assert longest < 50


@given(st.lists(st.sampled_from([b"a", b"\xe2", b"\x82", b"\xac", b"\xf0", b"\x9f", b"\x98", b"\xff", "é".encode()])))
def test_any_bytes_come_out_as_they_are_decoded_at_once(tokens):
    """Also what is no text: a byte-level tokenizer's pieces, however long they are not whole characters."""

    def decode(ids):
        return b"".join(tokens[id_] for id_ in ids).decode("utf-8", "replace")

    decoder = TextDecoder(decode)
    shown = "".join([decoder.push(id_) for id_ in range(len(tokens))]) + decoder.flush()
    assert shown == decode(range(len(tokens)))
