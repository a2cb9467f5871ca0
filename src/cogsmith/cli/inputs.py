"""Prompts, chat messages and token ids as a user gives them on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import typer

from cogsmith import lmtp
from cogsmith.client.prompting import Asked, find_template
from cogsmith.errors import ProtocolError, RequestError, UserError
from cogsmith.lmtp import constraints
from cogsmith.prompts.messages import from_instruction, with_system
from cogsmith.prompts.templates import Template

FILE_PREFIX = "file::"
STDIN = "-"

_MESSAGES_FIX = 'write a list, such as [{"role": "user", "content": "Hi"}]'
_IDS = re.compile(r"\d+([\s,]+\d+)*")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, as the options say it: texts, messages or an instruction, and how they become a prompt."""

    prompts: Sequence[str] | None
    delimiter: str | None
    messages: str | None
    instruction: str | None
    input: str
    system: str
    template: str | None

    def read(self) -> tuple[Template | None, list[Asked]]:
        """Return the named template, if one is, and what to continue or answer, each by itself.

        With a template, each text is an instruction. Raises UserError for what cannot be read and for a template that
        there is not, and typer's usage error where nothing, or too much, is given.
        """
        if sum((bool(self.prompts), self.messages is not None, self.instruction is not None)) != 1:
            raise typer.BadParameter("give either --prompts TEXT..., --messages FILE or --instruction TEXT")
        if self.input and (self.template is None or self.messages is not None):
            raise typer.BadParameter("--input is for an instruction through a --template")
        if self.system and self.prompts and self.template is None:
            raise typer.BadParameter("--system-prompt has no place in a plain prompt: name a --template")
        template = None if self.template is None else find_template(self.template)
        try:
            return template, self._asked()
        except RequestError as error:
            raise UserError(error.message, fix=error.fix) from error

    def _asked(self) -> list[Asked]:
        if self.messages is not None:
            return [with_system(read_messages(self.messages), self.system)]
        if self.instruction is not None:
            return [from_instruction(self.instruction, self.input, system=self.system)]
        texts = read_prompts(self.prompts or [], self.delimiter)
        if self.template is None:
            return list(texts)
        return [from_instruction(text, self.input, system=self.system) for text in texts]


def read_prompts(given: Sequence[str], delimiter: str | None) -> list[str]:
    """Return the prompts: each value as it is, or what stands in the file of a `file::PATH`, or on stdin for `-`.

    A file is one prompt, or with a `delimiter` as many as it separates; empty ones are left out. Raises UserError for
    a file that cannot be read or holds no prompt.
    """
    return [prompt for value in given for prompt in _prompts_of(value, delimiter)]


def _prompts_of(value: str, delimiter: str | None) -> list[str]:
    if value != STDIN and not value.startswith(FILE_PREFIX):
        return [value]
    path = Path(value.removeprefix(FILE_PREFIX)).expanduser()
    text = _read(path)
    prompts = [prompt for prompt in (text.split(delimiter) if delimiter else [text]) if prompt]
    if not prompts:
        raise UserError(
            f"{'stdin' if value == STDIN else path} holds no prompt", fix="write one into it, or give the text itself"
        )
    return prompts


def read_messages(value: str) -> list[dict[str, Any]]:
    """Return chat messages from JSON text, from a file of it, or from stdin where `value` is `-`.

    Raises UserError for what is no list of objects.
    """
    text = value if value.lstrip().startswith(("[", "{")) else _read(Path(value))
    try:
        messages = json.loads(text)
    except ValueError as error:
        raise UserError(f"--messages cannot be read as JSON: {error}", fix=_MESSAGES_FIX) from error
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise UserError("--messages is no list of messages", fix=_MESSAGES_FIX)
    return messages


def read_constraint(
    regex: str | None, json_schema: str | None, lark: str | None, choice: Sequence[str] | None
) -> dict[str, Any]:
    """Return the constraint that the options name, empty for none; schema and grammar as text or from a file of it.

    Raises typer's usage error for several, UserError for a file that cannot be read and for what no server would take.
    """
    named: dict[str, Any] = {"regex": regex, "json_schema": json_schema, "lark": lark, "choice": choice or None}
    given = {kind: value for kind, value in named.items() if value is not None}
    if len(given) > 1:
        raise typer.BadParameter("give one of --regex, --json-schema, --lark and --choice TEXT...")
    if json_schema is not None and not json_schema.lstrip().startswith(("{", "[")):
        given["json_schema"] = _read(
            Path(json_schema), 'give a schema, such as \'{"type": "object"}\', or a file of it'
        )
    if lark is not None and (":" not in lark or _is_file(lark)):
        given["lark"] = _read(Path(lark), "give a grammar, such as 'start: \"a\"+', or a file of it")
    for kind in given:
        _check_constraint(f"--{kind.replace('_', '-')}", kind, given)
    return given


def _check_constraint(option: str, kind: str, given: Mapping[str, Any]) -> None:
    # The client checks this too, but only once it is connected, and a local model loads for that.
    try:
        constraints.check(msgspec.convert(given, lmtp.Constraint))
    except ProtocolError as error:
        raise UserError(error.message.replace(f"constraint.{kind}", option), fix=error.fix) from error


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except OSError:
        # Too long for a path, as a grammar may be.
        return False


def parse_ids(option: str, value: str) -> tuple[int, ...]:
    """Return the token ids in `value`, separated by commas or spaces. Raises typer's usage error for `option`."""
    if not _IDS.fullmatch(value.strip()):
        raise typer.BadParameter(f"{option} is {value!r}, not token ids; give them as 504,3575,282")
    return tuple(map(int, re.split(r"[\s,]+", value.strip())))


def _read(path: Path, fix: str = "name a text file in UTF-8") -> str:
    try:
        return typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read: {reason}", fix=fix) from error
