"""Other ways to say what a conversation is, as chat messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cogsmith.errors import RequestError

Message = dict[str, Any]


def from_instruction(instruction: str, input: str = "", *, system: str = "") -> list[Message]:
    """Return the messages of one instruction, with what it is about, where there is something."""
    message = {"role": "user", "content": instruction}
    return with_system([message | ({"input": input} if input else {})], system)


def from_questions(qas: Sequence[Sequence[str | None]], *, system: str = "") -> list[Message]:
    """Return the messages of questions and answers, `[["…", "…"], ["…", None]]`; only the last answer may be open.

    Raises RequestError for anything else.
    """
    messages: list[Message] = []
    for place, pair in enumerate(qas):
        question, answer = _pair(pair, is_last=place == len(qas) - 1)
        messages.append({"role": "user", "content": question})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
    return with_system(messages, system)


def with_system(messages: Sequence[Message], system: str) -> list[Message]:
    """Return the messages with a system prompt before them, where one is given. Raises RequestError for a second."""
    if not system:
        return list(messages)
    if messages and messages[0].get("role") == "system":
        raise RequestError("the system prompt is given twice", fix="leave out `system`, or the system message")
    return [{"role": "system", "content": system}, *messages]


def _pair(pair: Sequence[str | None], *, is_last: bool) -> tuple[str, str | None]:
    question, answer = (None, None) if isinstance(pair, str) or len(pair) != 2 else pair
    if not isinstance(question, str):
        raise RequestError(f"{pair!r} is no question with its answer", fix='write ["question", "answer"]')
    if answer is None and not is_last:
        raise RequestError(f"the question {question!r} has no answer", fix="leave only the last answer open (null)")
    if answer is not None and not isinstance(answer, str):
        raise RequestError(f"the answer {answer!r} is no text", fix='write ["question", "answer"]')
    return question, answer
