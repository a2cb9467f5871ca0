"""Definitions within a batch: put where they are named, found where things are shared, never visible outside."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogsmith.errors import ProtocolError
from cogsmith.lmtp import (
    Allow,
    BatchLimits,
    End,
    ExtendedGenerate,
    ExtendedScore,
    Generate,
    MessageError,
    pack_mask,
    parse_batch,
    serialize_batch,
)

MASK = {"ranges": [[1, 2]]}


def define(name, **thing):
    return ["DEFINE", {"lmtp": "1.1", "name": name, **thing}]


def generate(stream_id, prompt, **fields):
    return ["GENERATE", {"lmtp": "1.1", "prompt": prompt, "stream_id": stream_id, **fields}]


def read(*items, **limits):
    return parse_batch(json.dumps(items), BatchLimits(**limits))


def test_what_is_named_stands_where_its_name_stood():
    batch = read(
        define("p", prompt=[1, 2]),
        generate(1, {"name": "p"}),
        define("m", allow=MASK),
        generate(2, {"name": "p", "then": [3]}, allow={"name": "m"}),
        ["SCORE", {"lmtp": "1.1", "prompt": {"name": "p", "then": []}, "options": [[7]], "stream_id": 3}],
        generate(4, [9], allow={"name": "m"}),
    )
    assert batch.items == (
        ExtendedGenerate(prompt=(1, 2), stream_id=1),
        ExtendedGenerate(prompt=(1, 2, 3), stream_id=2, allow=Allow(ranges=((1, 2),))),
        ExtendedScore(prompt=(1, 2), options=((7,),), stream_id=3),
        ExtendedGenerate(prompt=(9,), stream_id=4, allow=Allow(ranges=((1, 2),))),
    )
    assert batch.items[0].prompt is batch.items[2].prompt
    assert batch.items[1].allow is batch.items[3].allow


def test_prompts_and_masks_have_their_names_in_common():
    batch = read(define("x", prompt=[1]), define("x", allow=MASK), generate(1, {"name": "x"}), generate(2, [1]))
    assert [failure.stream_id for failure in batch.failures] == [None, 1]


@pytest.mark.parametrize(
    ("definitions", "fields", "words"),
    [
        ([], {"prompt": {"name": "p"}}, 'prompt names "p", which is not defined'),
        ([], {"allow": {"name": "m"}}, 'allow names "m", which is not defined'),
        ([define("m", allow=MASK)], {"prompt": {"name": "m"}}, 'prompt names "m", which is defined as something else'),
        ([define("p", prompt=[1])], {"allow": {"name": "p"}}, 'allow names "p", which is defined as something else'),
        ([define("p", prompt=[1]), define("p", prompt=[1])], {"prompt": {"name": "p"}}, "which is defined twice"),
        ([define("p", prompt=[-1])], {"prompt": {"name": "p"}}, "not defined"),
        ([], {"prompt": {"nam": "p"}}, "names nothing"),
        ([], {"prompt": {"name": "p", "than": [1]}}, "names nothing"),
        ([define("p", prompt=[1])], {"prompt": {"name": "p", "then": [-1]}}, "names nothing"),
        ([], {"prompt": {"name": 5}}, "names nothing"),
        ([define("m", allow=MASK)], {"allow": {"name": "m", "ranges": [[1, 2]]}}, "names nothing"),
    ],
)
def test_a_name_that_stands_for_nothing_ends_the_operation_that_uses_it(definitions, fields, words):
    batch = read(*definitions, generate(1, fields.pop("prompt", [1]), **fields), generate(2, [1]))
    assert batch.operations == (ExtendedGenerate(prompt=(1,), stream_id=2),)
    reply = batch.failures[-1].reply
    assert isinstance(reply, End)
    assert (reply.stream_id, reply.finish_reason) == (1, "error")
    assert words in reply.error


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (define("p"), '"p" has neither prompt nor allow'),
        (define("p", prompt=[1], allow=MASK), '"p" has both prompt and allow'),
        (define("", prompt=[1]), 'name is "" (give a string of 1 to 64 characters)'),
        (define("p", prompt=[1, "x"]), 'prompt[1] is "x"'),
        (define("p", allow={"ranges": [[2, 1]]}), "allow.ranges[0] is [2, 1]"),
        (define("p", prompt={"name": "q"}), 'prompt is {"name": "q"} (give a list of token ids)'),
        (define("p", promt=[1]), "is no field of DEFINE in LMTP 1.1 (did you mean prompt?)"),
        (["DEFINE", []], '"DEFINE" is a verb of LMTP 1.1 only'),
        (["DEFINE", {"name": "p", "prompt": [1]}], '"DEFINE" is a verb of LMTP 1.1 only (add "lmtp": "1.1")'),
    ],
)
def test_a_bad_definition_is_told_to_no_stream(item, words):
    batch = read(item, generate(1, [1]))
    assert batch.operations == (ExtendedGenerate(prompt=(1,), stream_id=1),)
    (failure,) = batch.failures
    assert isinstance(failure.reply, MessageError)
    assert failure.reply.stream_id is None
    assert words in failure.message


def test_an_operation_of_1_0_knows_no_names():
    batch = read(define("p", prompt=[1]), ["GENERATE", {"prompt": {"name": "p"}, "stream_id": 1}])
    assert "prompt is" in batch.failures[0].message


def test_a_batch_of_definitions_asks_for_nothing():
    with pytest.raises(ProtocolError, match="definitions and no operation"):
        read(define("p", prompt=[1]))


def test_definitions_stand_beside_as_many_operations():
    definitions = [define(f"p{i}", prompt=[i]) for i in range(3)]
    operations = [generate(i, {"name": f"p{i}"}) for i in range(3)]
    assert len(read(*definitions, *operations, max_operations=3).operations) == 3
    with pytest.raises(ProtocolError, match="holds 4 operations, more than 3"):
        read(*definitions, *operations, generate(9, [1]), max_operations=3)
    with pytest.raises(ProtocolError, match="holds 4 operations, more than 3"):
        read(define("q", prompt=[1]), *definitions, *operations, max_operations=3)


def test_names_do_not_make_a_short_batch_into_more_than_a_server_holds():
    uses = [generate(i, {"name": "p", "then": [i]}) for i in range(5)]
    batch = read(define("p", prompt=[1] * 9), *uses, generate(9, [1, 2]), max_all_prompt_ids=32)
    assert [operation.stream_id for operation in batch.operations] == [0, 1, 2, 9]
    assert "with this prompt's 10 ids the batch has 40 in all, more than 32" in batch.failures[0].message


LONG = tuple(range(500))
HALF = pack_mask(range(0, 4000, 2))


def test_a_shared_beginning_is_sent_once():
    operations = [ExtendedGenerate(prompt=(*LONG, i), stream_id=i) for i in range(9)]
    operations.append(ExtendedScore(prompt=LONG, options=((1,), (2,)), stream_id=9))
    items = json.loads(serialize_batch(operations))
    assert [verb for verb, _ in items] == ["DEFINE", *["GENERATE"] * 9, "SCORE"]
    assert items[0][1]["prompt"] == list(LONG)
    assert [payload["prompt"].get("then") for _, payload in items[1:]] == [*([i] for i in range(9)), None]


def test_a_shared_mask_is_sent_once():
    operations = [ExtendedGenerate(prompt=(i,), stream_id=i, allow=HALF) for i in range(9)]
    text = serialize_batch(operations)
    assert text.count(HALF.bits) == 1
    assert parse_batch(text).items == tuple(operations)


def test_each_group_of_prompts_gets_its_own_definition():
    prompts = [(1, *LONG, 1), (2, *LONG, 2), (1, *LONG, 3), (2, *LONG, 4), (3, 4)]
    operations = [ExtendedGenerate(prompt=prompt, stream_id=i) for i, prompt in enumerate(prompts)]
    items = json.loads(serialize_batch(operations))
    assert [payload["prompt"] for verb, payload in items if verb == "DEFINE"] == [[1, *LONG], [2, *LONG]]


def test_little_in_common_is_not_worth_a_name():
    operations = [ExtendedGenerate(prompt=(1, i), stream_id=i, allow=pack_mask([5])) for i in range(3)]
    assert "DEFINE" not in serialize_batch(operations)


def test_operations_of_1_0_are_left_as_they_are():
    operations = [Generate(prompt=LONG, stream_id=i) for i in range(2)]
    assert serialize_batch(operations).count(json.dumps(LONG)) == 2


beginnings = st.sampled_from([(), (1,), LONG, LONG[:200], (1, *LONG), (7,) * 60])
masks = st.none() | st.sampled_from([HALF, pack_mask([1]), pack_mask(range(1, 900, 3))])
ends = st.lists(st.integers(0, 3), max_size=3).map(tuple)
prompts = st.tuples(beginnings, ends).map(lambda parts: (*parts[0], *parts[1]))
operations = st.lists(
    st.builds(ExtendedGenerate, prompt=prompts, stream_id=st.just(0), allow=masks)
    | st.builds(ExtendedScore, prompt=prompts, stream_id=st.just(0), options=st.just(((1,),)))
    | st.builds(Generate, prompt=prompts, stream_id=st.just(0)),
    min_size=1,
    max_size=8,
)


@given(operations)
def test_whatever_is_shared_comes_through_and_never_costs_more(batch):
    batch = [msgspec.structs.replace(operation, stream_id=i) for i, operation in enumerate(batch)]
    text = serialize_batch(batch)
    assert list(parse_batch(text).items) == batch
    in_full = sum(len(serialize_batch([operation])) for operation in batch)
    assert len(text) <= in_full + 2 * len(batch)
