"""What a model is for is told by transformers' own names."""

from __future__ import annotations

import pytest
from transformers.models.auto import modeling_auto

from cogsmith.errors import UserError
from cogsmith.heads import other_task, require_language_model

OTHERS = ("SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING", "MULTIPLE_CHOICE")
LANGUAGE = ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_TEXT_TO_TEXT")


def names(task: str) -> set[str]:
    values = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").values()
    return {name for value in values for name in ((value,) if isinstance(value, str) else value) if name}


@pytest.mark.parametrize("task", LANGUAGE)
def test_no_language_model_is_taken_for_another(task):
    assert not [name for name in names(task) if other_task({"architectures": [name]})]


@pytest.mark.parametrize("task", OTHERS)
def test_transformers_others_are_known(task):
    unknown = [name for name in names(task) if not other_task({"architectures": [name]})]
    # A few have names of their own.
    assert len(unknown) <= 4, unknown


@pytest.mark.parametrize("stated", [{}, {"architectures": None}, {"architectures": []}, {"architectures": [7]}])
def test_what_does_not_say_is_let_pass(stated):
    require_language_model(stated, "m")


def test_the_refusal_says_what_it_is_and_what_can_be_done():
    with pytest.raises(UserError, match="m is a BertForSequenceClassification, which sorts texts") as caught:
        require_language_model({"architectures": ["BertForSequenceClassification"]}, "m")
    assert 'task = "encoder"' in str(caught.value.fix)
