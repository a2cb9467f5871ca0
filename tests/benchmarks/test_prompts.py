"""Prompts that no engine has seen, of the lengths that the rows are named after."""

import itertools

import pytest
from engines.rows import ROWS
from engines.tasks import Score

from ..engine.models import byte_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a tokenizer, which is all that prompts are made of."""
    folder = tmp_path_factory.mktemp("checkpoint")
    byte_tokenizer().save_pretrained(folder)
    return folder


def first_prompts(checkpoint, row, repetition):
    task = row.task(checkpoint, repetition)
    return [task.prompt] if isinstance(task, Score) else [stream.prompt for stream in task.streams]


def test_no_row_or_repetition_begins_as_another(checkpoint):
    beginnings = [tuple(first_prompts(checkpoint, row, repetition)[0][:32]) for row in ROWS for repetition in range(3)]
    assert len(set(beginnings)) == len(beginnings)


def test_streams_of_a_growing_prompt_share_all_but_the_end(checkpoint):
    (row,) = (row for row in ROWS if row.name == "growing16")
    prompts = first_prompts(checkpoint, row, 0)
    assert [len(prompt) for prompt in prompts] == [512] * 16
    assert len({tuple(prompt[:508]) for prompt in prompts}) == 1
    assert len(set(map(tuple, prompts))) > 1


def test_each_stream_has_a_mask_of_its_own(checkpoint):
    (row,) = (row for row in ROWS if row.name == "masks8")
    masks = [stream.bias for stream in row.task(checkpoint, 0).streams]
    assert all(one != other for one, other in itertools.combinations(masks, 2))
    assert {value for mask in masks for value in mask.values()} == {100.0, -100.0}
