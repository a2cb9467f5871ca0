"""Other ways to say what a conversation is, as chat messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def before_text(text: str, placeholder: str, count: int) -> str:
    """Return a text with `count` image placeholders before it, a line each, unless it has some of its own."""
    return text if placeholder in text else (placeholder + "\n") * count + text


def with_images(messages: Sequence[Message], placeholder: str, count: int) -> list[Message]:
    """Return messages whose first one of the user begins with `count` images, unless they say themselves where.

    They do so by parts of the content, `{"type": "image"}`, or by the placeholder in a text.
    """
    messages = [*messages]
    said = [part for message in messages for part in _parts(message)]
    if any(part.get("type") == "image" or placeholder in str(part.get("text", "")) for part in said):
        return messages
    for place, message in enumerate(messages):
        if message.get("role") == "user" and count:
            messages[place] = behind_images(message, count)
            break
    return messages


def behind_images(message: Message, count: int) -> Message:
    """Return a message whose content begins with `count` images."""
    return message | {"content": [*({"type": "image"} for _ in range(count)), *_parts(message)]}


def flattened(messages: Sequence[Message], placeholder: str) -> list[Message]:
    """Return messages whose contents are texts, for templates that know no other: an image is a line of its own.

    LLaVA writes them so: `<image>`, a line break, and what is said of it.
    """
    return [message | {"content": _flat(message, placeholder)} for message in messages]


def in_parts(message: Mapping[str, Any]) -> Message:
    """Return a message whose content, where it is one text, is a list with that text."""
    return {**message, "content": _parts(dict(message))} if isinstance(message.get("content"), str) else dict(message)


def _flat(message: Message, placeholder: str) -> Any:
    parts = _parts(message)
    if isinstance(message.get("content"), str) or not all(part.get("type") in ("image", "text") for part in parts):
        return message.get("content")
    return "".join(placeholder + "\n" if part["type"] == "image" else str(part.get("text", "")) for part in parts)


def _parts(message: Message) -> list[Message]:
    """The parts of a message's content, which may be one text."""
    content = message.get("content")
    if isinstance(content, list):
        return [part for part in content if isinstance(part, dict)]
    return [{"type": "text", "text": content}] if isinstance(content, str) and content else []


def with_input(messages: Sequence[Mapping[str, Any]], template: str) -> list[Mapping[str, Any]]:
    """Return messages for `template`: what an instruction is about follows it, unless the template says `['input']`."""
    if takes_input(template):
        return list(messages)
    return [_joined(message) if message.get("input") else message for message in messages]


def takes_input(template: str) -> bool:
    """Whether the text of a template says itself what becomes of an instruction's input."""
    return "['input']" in template


def _joined(message: Mapping[str, Any]) -> Message:
    rest = {key: value for key, value in message.items() if key != "input"}
    content, about = message.get("content"), message["input"]
    if isinstance(content, list):
        return rest | {"content": [*content, {"type": "text", "text": f"\n\n{about}"}]}
    return rest | {"content": f"{content}\n\n{about}"}


def _pair(pair: Sequence[str | None], *, is_last: bool) -> tuple[str, str | None]:
    question, answer = (None, None) if isinstance(pair, str) or len(pair) != 2 else pair
    if not isinstance(question, str):
        raise RequestError(f"{pair!r} is no question with its answer", fix='write ["question", "answer"]')
    if answer is None and not is_last:
        raise RequestError(f"the question {question!r} has no answer", fix="leave only the last answer open (null)")
    if answer is not None and not isinstance(answer, str):
        raise RequestError(f"the answer {answer!r} is no text", fix='write ["question", "answer"]')
    return question, answer
