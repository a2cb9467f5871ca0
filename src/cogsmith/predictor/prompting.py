"""From what a person says to the token ids that the model reads, and where its answer ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2

from cogsmith.engine.request import Media
from cogsmith.errors import RequestError
from cogsmith.manifest import Prompt
from cogsmith.predictor.inputs import TextInputs
from cogsmith.prompts import chat, templates
from cogsmith.prompts.messages import before_text, flattened, from_instruction, with_images, with_system
from cogsmith.prompts.templates import Template
from cogsmith.prompts.tokens import split_stops, wants_special

if TYPE_CHECKING:
    from cogsmith.engine.images import Pictures

_KINDS = ("prompt", "prompts", "messages", "instruction")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt's ids, and its images. The answer ends before a text of `stop`, and with a token of `end_ids`."""

    ids: tuple[int, ...]
    stop: tuple[str, ...] = ()
    end_ids: frozenset[int] = frozenset()
    media: Media | None = None


class _Text(NamedTuple):
    """A prompt as text. `special` says whether the tokenizer is to add its special tokens."""

    text: str
    special: bool = True


def encode(
    inputs: TextInputs, tokenizer: Any, packaged: Prompt | None = None, pictures: Pictures | None = None
) -> list[Encoded]:
    """Return the prompts, one but for `prompts`. `packaged` is what the work directory says of prompts.

    Where there is only a cache, its text is the prompt. `pictures` are the images, for a model that reads some: they
    stand where the text has placeholders, and otherwise before what the user says first.

    Raises RequestError where none or several kinds of prompt are given, or no template fits.
    """
    if tokenizer is None:
        raise RequestError("this model came without a tokenizer, so it takes no text", fix="send ops_batch_json")
    if inputs.cache is not None and not inputs.has_words:
        return [Encoded(inputs.cache.tokens)]
    packaged = packaged or Prompt()
    kind = _kind(inputs)
    template = _template(inputs, packaged)
    system = inputs.system_prompt or (packaged.system if template or kind != "prompt" else "")
    stop = split_stops(_stop(inputs, packaged, template), getattr(tokenizer, "added_tokens_decoder", {}))
    chats = _chats(kind, inputs, template)
    if chats:
        said = [_said(with_system(chat, system), inputs, tokenizer, template, pictures) for chat in chats]
    else:
        _refuse_system(system)
        said = [_plain(text, pictures) for text in _asked(kind, inputs)]
    read = [_read(one, tokenizer, pictures) for one in said]
    return [Encoded(ids, stop.texts, frozenset(stop.ids), media) for ids, media in read]


def _asked(kind: str, inputs: TextInputs) -> Sequence[str]:
    return [inputs.prompt] if kind == "prompt" else inputs.prompts


def _chats(kind: str, inputs: TextInputs, template: Template | None) -> list[list[dict[str, Any]]]:
    """The conversations that are asked for; none where plain texts are to be continued."""
    if kind == "messages":
        return [list(inputs.messages)]
    if kind == "instruction":
        return [from_instruction(inputs.instruction, inputs.input)]
    return [from_instruction(text, inputs.input) for text in _asked(kind, inputs)] if template else []


def _plain(text: str, pictures: Pictures | None) -> _Text:
    return _Text(text if pictures is None else before_text(text, pictures.placeholder, len(pictures)))


def _kind(inputs: TextInputs) -> str:
    """Which kind of prompt there is."""
    given = [kind for kind in _KINDS if getattr(inputs, kind)]
    if len(given) != 1:
        said = f"{' and '.join(given)} are given together" if given else f"none of {', '.join(_KINDS)} is given"
        raise RequestError(said, fix="send exactly one of them, or ops_batch_json")
    if inputs.input and given[0] not in ("instruction", "prompt"):
        raise RequestError(f"input belongs to an instruction, and {given[0]} is given", fix="leave out input")
    return given[0]


def _template(inputs: TextInputs, packaged: Prompt) -> Template | None:
    """The named template that is to be used; None for the tokenizer's own, or none."""
    if inputs.template:
        return templates.find(inputs.template)
    return templates.packaged(packaged)


def _stop(inputs: TextInputs, packaged: Prompt, template: Template | None) -> Sequence[str]:
    """The texts that end an answer: those of the request, of the package, or of the template."""
    if inputs.stop is not None:
        if not all(inputs.stop):
            raise RequestError("a stop text is empty", fix="leave it out: [] stops at end tokens alone")
        return inputs.stop
    # What is packaged goes with the packaged template, and no other.
    if packaged.stop is not None and not inputs.template:
        return packaged.stop
    return template.stop if template else ()


def _read(said: _Text, tokenizer: Any, pictures: Pictures | None) -> tuple[tuple[int, ...], Media | None]:
    if pictures is not None:
        return pictures.read(said.text, special=said.special)
    return tuple(tokenizer.encode(said.text, add_special_tokens=said.special)), None


def _said(
    messages: list[dict[str, Any]],
    inputs: TextInputs,
    tokenizer: Any,
    template: Template | None,
    pictures: Pictures | None,
) -> _Text:
    """Put messages through a template, the named one or the model's own."""
    own = tokenizer.chat_template
    if pictures is not None:
        own = pictures.chat_template or own
        messages = with_images(messages, pictures.placeholder, len(pictures))
        if template is not None or "image" not in str(own):
            messages = flattened(messages, pictures.placeholder)
    if template is not None:
        return _by_name(template, messages, inputs, tokenizer, pictures)
    if not own:
        raise RequestError("this model has no chat template", fix="send prompt instead, or name a template")
    try:
        text = tokenizer.apply_chat_template(
            chat.as_known(messages, own),
            chat_template=own,
            tokenize=False,
            add_generation_prompt=inputs.add_generation_prompt,
        )
    except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
        raise RequestError(f"the model's chat template refuses these messages: {error}") from error
    # The template has already written the special tokens that the text needs.
    return _Text(text, special=False)


def _by_name(
    template: Template,
    messages: list[dict[str, Any]],
    inputs: TextInputs,
    tokenizer: Any,
    pictures: Pictures | None,
) -> _Text:
    special = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    text = template.render(messages, special, add_generation_prompt=inputs.add_generation_prompt)
    if pictures is not None:
        # A template for images alone has no place for what the user says.
        text = before_text(text, pictures.placeholder, len(pictures))
    return _Text(text, wants_special(text, special, own=template.text == tokenizer.chat_template))


def _refuse_system(system: str) -> None:
    if system:
        raise RequestError(
            "system_prompt is given, and a plain prompt has no place for it", fix="send messages, or name a template"
        )
