"""Whatever a peer sends, only ProtocolError escapes; whatever is legal comes through unchanged."""

from __future__ import annotations

import contextlib
import json
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from cogsmith.errors import ProtocolError
from cogsmith.lmtp import (
    Cancel,
    Cancelled,
    End,
    ExtendedGenerate,
    ExtendedScore,
    ExtendedToken,
    Generate,
    GetTokenizer,
    Info,
    LineReader,
    MessageError,
    ModelInfo,
    Score,
    Timing,
    Token,
    TokenError,
    TokenizerFiles,
    Usage,
    encode_items,
    encode_line,
    pack_mask,
    parse_batch,
    parse_line,
    serialize_batch,
)

VERBS = ["GENERATE", "SCORE", "MODEL_INFO", "TOKEN", "MSG", "CANCEL", "TOKENIZER", "DEFINE", "END"]
FIELDS = [
    *("prompt", "scored", "stream_id", "max_tokens", "temperature", "logit_bias", "top_logprobs", "top_p", "top_k"),
    *("model", "data", "token", "logprob", "finish_reason", "error", "model_info", "length_penalty", "else"),
    *("lmtp", "allow", "stop", "min_tokens", "seed", "n", "logprob_ids", "deadline_ms", "cancel_key", "options"),
    *("name", "then", "ranges", "bits", "index", "cancelled", "tokenizer", "special", "usage", "timing"),
]
any_text = st.text(st.characters(exclude_categories=()))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.sampled_from(["stop", "1", "-0"])
keys = st.sampled_from(FIELDS) | st.integers(-2, 9).map(str) | any_text
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12)
masks_or_uses = st.sampled_from([{"name": "1"}, {"ranges": [[1, 2]]}, {"bits": "AQ=="}, {"name": "1", "then": [1]}])
payloads = st.dictionaries(st.sampled_from(FIELDS), values | st.lists(st.integers(0, 9)) | masks_or_uses)
extended = payloads.map(lambda payload: {**payload, "lmtp": "1.1"})
likely_batches = st.lists(st.tuples(st.sampled_from([*VERBS, "SING"]), payloads | extended | values) | values)

ids = st.lists(st.integers(0, 2**53 - 1), max_size=4).map(tuple)
streams = st.integers(1 - 2**53, 2**53 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
plain_text = st.text()
biases = st.dictionaries(st.integers(0, 2**53 - 1), numbers, max_size=4)
json_objects = st.dictionaries(
    plain_text, st.none() | st.booleans() | st.integers(-(2**60), 2**60) | numbers | plain_text, max_size=3
)
counts = st.integers(0, 1000)
operations = st.one_of(
    st.builds(
        Generate,
        prompt=ids,
        stream_id=streams,
        max_tokens=st.integers(1, 1000),
        temperature=st.floats(0, 1e6),
        logit_bias=biases,
        top_logprobs=counts,
        top_p=st.floats(0, 1, exclude_min=True),
        top_k=counts,
        repetition_penalty=st.floats(0, 1e6, exclude_min=True),
        presence_penalty=numbers,
        frequency_penalty=numbers,
        model=st.none() | plain_text,
    ),
    st.builds(Score, prompt=ids, scored=ids.filter(bool), stream_id=streams, model=st.none() | plain_text),
    st.builds(ModelInfo, stream_id=streams, data=st.none() | json_objects),
)
positive = st.integers(1, 2**53 - 1)
keys_to_cancel = st.text(min_size=1, max_size=200)
extended_operations = st.one_of(
    st.builds(
        ExtendedGenerate,
        prompt=ids,
        stream_id=streams,
        logit_bias=biases,
        allow=st.none() | st.sets(st.integers(0, 2**53 - 2), min_size=1).map(pack_mask),
        stop=st.lists(st.text(min_size=1) | ids.filter(bool), max_size=3).map(tuple),
        min_tokens=counts,
        seed=st.none() | st.integers(0, 2**53 - 1),
        n=st.integers(1, 128),
        logprob_ids=ids,
        deadline_ms=st.none() | positive,
        cancel_key=st.none() | keys_to_cancel,
    ),
    st.builds(
        ExtendedScore,
        prompt=ids,
        stream_id=streams,
        options=st.lists(ids.filter(bool), min_size=1, max_size=3).map(tuple),
        top_logprobs=counts,
        logprob_ids=ids,
        deadline_ms=st.none() | positive,
        cancel_key=st.none() | keys_to_cancel,
    ),
    st.builds(Cancel, stream_id=streams, cancel_key=keys_to_cancel),
    st.builds(GetTokenizer, stream_id=streams),
)
token_items = st.one_of(
    st.builds(
        Token,
        token=st.integers(0, 2**53 - 1),
        stream_id=streams,
        logprob=numbers,
        finish_reason=st.sampled_from([None, "stop", "length"]),
        top_logprobs=st.none() | biases,
    ),
    st.builds(TokenError, stream_id=streams, error=plain_text),
    st.builds(
        ExtendedToken,
        token=st.integers(0, 2**53 - 1),
        stream_id=streams,
        index=counts,
        logprob=numbers,
        finish_reason=st.sampled_from([None, "stop", "length", "stop_sequence"]),
        top_logprobs=st.none() | biases,
        logprobs=st.none() | biases,
    ),
)
message_items = st.one_of(
    st.builds(Info, stream_id=streams, model_info=json_objects),
    st.builds(MessageError, stream_id=st.none() | streams, error=plain_text),
    st.builds(Cancelled, stream_id=streams, cancelled=counts),
    st.builds(TokenizerFiles, stream_id=streams, tokenizer=plain_text, special=json_objects),
)
ends = st.builds(
    End,
    stream_id=streams,
    index=st.none() | counts,
    finish_reason=st.sampled_from(["stop", "length", "stop_sequence", "cancelled", "deadline", "error"]),
    stop=st.none() | plain_text | ids,
    error=st.none() | plain_text,
    usage=st.none() | st.builds(Usage, prompt_tokens=counts, tokens=counts),
    timing=st.none() | st.builds(Timing, first_token_ms=st.none() | st.floats(0, 1e9), total_ms=st.floats(0, 1e9)),
)


def feed_batch(text):
    """Read a batch; every failure must be fit to be sent."""
    with contextlib.suppress(ProtocolError):
        batch = parse_batch(text)
        assert len(batch.operations) + len(batch.failures) == len(batch.items)
        for failure in batch.failures:
            assert parse_line(encode_line(failure.reply)) == [failure.reply]
        assert all(warning.isascii() and warning.isprintable() for warning in batch.warnings)
        if batch.operations:
            assert parse_batch(serialize_batch(batch.operations)).items == batch.operations


def feed_line(line):
    """Read a line."""
    with contextlib.suppress(ProtocolError):
        for message in parse_line(line):
            assert parse_line(encode_line(message)) == [message]


@given(any_text | st.binary() | st.text(string.punctuation + string.digits + "aeflnrstuNI \n"))
def test_any_text_as_batch(text):
    feed_batch(text)


@given(values | likely_batches)
@settings(max_examples=300)
def test_any_json_as_batch(value):
    feed_batch(json.dumps(value))
    feed_batch(json.dumps(value, ensure_ascii=False))


@given(any_text, st.sampled_from(VERBS))
def test_any_text_as_line(text, verb):
    feed_line(text)
    feed_line(f"{verb} {text}")


@given(st.sampled_from(VERBS), payloads | extended | st.lists(payloads) | values)
@settings(max_examples=300)
def test_any_json_as_line(verb, value):
    feed_line(f"{verb} {json.dumps(value)}")
    feed_line(f"{verb} {json.dumps(value, ensure_ascii=False)}")


@given(
    st.lists(operations | extended_operations, min_size=1, max_size=4, unique_by=lambda operation: operation.stream_id)
)
def test_legal_operations_come_through(batch):
    parsed = parse_batch(serialize_batch(batch))
    assert (list(parsed.items), parsed.warnings) == (batch, ())
    assert [parse_line(encode_line(operation)) for operation in batch] == [[operation] for operation in batch]


@given(
    st.sampled_from([token_items, message_items, ends]).flatmap(lambda items: st.lists(items, min_size=1, max_size=4))
)
def test_legal_replies_come_through(replies):
    assert parse_line(encode_items(replies)) == replies
    lines = [encode_line(reply) for reply in replies]
    assert [parse_line(line) for line in lines] == [[reply] for reply in replies]
    assert "".join(lines).isascii()
    assert "".join(lines).splitlines(keepends=True) == lines


@given(st.lists(st.text("ab\r\n", max_size=5)))
def test_pieces_make_the_lines_of_the_whole(pieces):
    reader = LineReader()
    lines = [line for piece in pieces for line in reader.feed(piece)]
    whole = [line.removesuffix("\r") for line in "".join(pieces).split("\n")[:-1]]
    assert lines == [line for line in whole if line]
