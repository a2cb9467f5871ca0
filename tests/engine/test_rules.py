"""What is prepared of a request's bias, mask and least length, and shared with equal ones."""

import numpy as np
import pytest
import torch

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.dense import DenseRows
from cogsmith.engine.request import GenerateRequest, Sampling
from cogsmith.engine.rules import RuleBook

HEAD, VOCAB = 70, 60
CPU = torch.device("cpu")


@pytest.fixture
def book():
    info = EngineInfo("tiny", "transformers", HEAD, VOCAB, 64, frozenset({5, 6}), None, 1, 1, 1, "float32", "cpu")
    return RuleBook(info)


def bits(*ids):
    return sum(1 << i for i in ids).to_bytes(max(ids) // 8 + 1, "little")


def values(row):
    return row.on(CPU).tolist()


def test_a_request_that_changes_nothing_has_nothing_to_add(book):
    rules = book.of(GenerateRequest((1,)))
    assert rules.dense(0) is None
    assert rules.prompt_ids is None


def test_bias_and_mask_make_one_row(book):
    row = values(book.of(GenerateRequest((1,), bias={3: 1.5, 9: -2.0, 99: 7.0}, allow=bits(3, 4, 65))).dense(0))
    assert {i: value for i, value in enumerate(row) if value != -np.inf} == {3: 1.5, 4: 0.0}


def test_end_tokens_are_banned_until_there_are_enough_tokens(book):
    rules = book.of(GenerateRequest((1,), bias={3: 1.5}, min_tokens=2))
    banned = [i for i, value in enumerate(values(rules.dense(1))) if value == -np.inf]
    assert banned == [5, 6]
    assert values(rules.dense(2)) == [1.5 if i == 3 else 0.0 for i in range(HEAD)]


def test_a_constraint_that_leaves_end_tokens_alone_gets_them(book):
    rules = book.of(GenerateRequest((1,), allow=bits(5, 9), min_tokens=2))
    ends, others = np.frombuffer(bits(5, 20), np.uint8), np.frombuffer(bits(5, 9), np.uint8)
    assert rules.dense(0, ends) is rules.later
    assert rules.dense(0, others) is rules.early


def test_equal_masks_and_biases_are_held_once(book):
    def asked(**changes):
        return book.of(GenerateRequest((1,), **{"bias": {3: 1.0, 4: 2.0}, "allow": bits(3, 4), **changes})).dense(0)

    assert asked() is asked()
    others = [asked(bias={3: 1.0, 4: 2.5}), asked(allow=bits(3)), asked(bias={}), asked(allow=None)]
    assert len({id(row) for row in (asked(), *others)}) == 5


def test_the_order_of_a_bias_changes_nothing(book):
    one, other = (book.of(GenerateRequest((1,), bias=bias)).dense(0) for bias in ({3: 1.0, 4: 2.0}, {4: 2.0, 3: 1.0}))
    assert values(one) == values(other)


def test_only_so_many_bytes_are_held_and_what_was_used_last_stays():
    rows = DenseRows(max_bytes=3 * 40)
    made = []

    def get(key):
        return rows.get(key, lambda: made.append(key) or np.zeros(10, np.float32))

    for key in ("a", "b", "c", "a", "d", "a", "c", "d", "b"):
        get(key)
    assert made == ["a", "b", "c", "d", "b"]


def test_a_row_larger_than_all_is_still_given():
    rows = DenseRows(max_bytes=1)
    row = rows.get("a", lambda: np.ones(10, np.float32))
    assert rows.get("a", lambda: np.zeros(10, np.float32)) is row


def test_the_prompts_ids_are_prepared_where_a_penalty_needs_them(book):
    rules = book.of(GenerateRequest((7, 1, 7), sampling=Sampling(repetition_penalty=1.1)))
    assert rules.prompt_ids.tolist() == [1, 7]
