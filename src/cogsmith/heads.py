"""What a model is for besides continuing text, by the name of its class: transformers' end in For and the task.

https://huggingface.co/docs/transformers/model_doc/auto has all of them. Weights of such a class lack the head that a
language model ends in, and transformers would make one up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cogsmith.errors import UserError

_OTHER_TASKS = {
    "SequenceClassification": "sorts texts into classes",
    "TokenClassification": "labels the words of a text",
    "QuestionAnswering": "marks the answer in a text",
    "MultipleChoice": "chooses one of several texts",
    "NextSentencePrediction": "tells whether one sentence follows another",
    "ImageClassification": "sorts images into classes",
    "AudioClassification": "sorts sounds into classes",
}


def other_task(stated: Mapping[str, Any]) -> str | None:
    """Return what a model does that continues no text, by config.json's content; None for any other model.

    It says the class too: "a BertForSequenceClassification, which sorts texts into classes".
    """
    names = stated.get("architectures")
    name = names[0] if isinstance(names, (list, tuple)) and names else None
    if not isinstance(name, str):
        return None
    does = _OTHER_TASKS.get(name.rpartition("For")[2])
    return f"a {name}, which {does}" if does else None


def require_language_model(stated: Mapping[str, Any], subject: str) -> None:
    """Raise UserError where config.json's content, of `subject`, names a class that continues no text."""
    if other := other_task(stated):
        raise UserError(
            f"{subject} is {other} and has no head to continue one with",
            fix='set task = "encoder", or "decoder" for one that reads from left to right, to serve the vectors of its '
            "layers; the head that it has is not served",
        )
