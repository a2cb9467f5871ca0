"""The client's tokenizer: text to ids and back, without transformers."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cogsmith import detokenize
from cogsmith.errors import EndpointError, ProtocolError, RequestError, RequestRejected
from cogsmith.lmtp import TokenizerFiles
from cogsmith.prompts.messages import before_text, flattened, with_images
from cogsmith.prompts.templates import Template
from cogsmith.prompts.tokens import Stops, split_stops, wants_special


class ClientTokenizer:
    """A `tokenizers.Tokenizer` and what belongs to it: special tokens by name, and the chat template.

    `images` are the placeholders of the images that every prompt is about, one text each.
    """

    def __init__(
        self, tokenizer: Tokenizer, special: Mapping[str, Any] | None = None, images: Sequence[str] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._special = special or {}
        self._images = tuple(images)

    def with_images(self, placeholder: str, count: int) -> ClientTokenizer:
        """Return the same tokenizer for prompts about `count` images, which stand where a prompt does not say."""
        return ClientTokenizer(self._tokenizer, self._special, [placeholder] * count)

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Every token with its id."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the vocabulary: equal where ids mean the same."""
        return detokenize.fingerprint(self.vocabulary)

    @property
    def pad_id(self) -> int | None:
        """Id of the token that fills up a batch: the end token where there is none for it; None where not known."""
        token = self._special.get("pad_token") or self._special.get("eos_token")
        return self.vocabulary.get(token) if isinstance(token, str) else None

    @property
    def chat_template(self) -> str | None:
        """The model's own template for chat messages, Jinja; None where it has none."""
        template = self._special.get("chat_template")
        return template if isinstance(template, str) else None

    def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """Return the ids of `text`, with the special tokens that a whole prompt begins or ends with if `special`.

        Raises RequestRejected for what is no Unicode text, such as half a surrogate pair.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestRejected(f"the text cannot be encoded: {error}", fix="give Unicode text") from error
        if special and self._images:
            text = before_text(text, self._images[0], len(self._images))
        return tuple(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], template: Template | None = None) -> tuple[int, ...]:
        """Return the ids of chat messages, ready to be answered; through a named `template`, or the model's own.

        Raises RequestRejected where no template fits.
        """
        try:
            if template is not None:
                return self.encode_with(template, messages)
            own = self.chat_template
            if own is None:
                raise RequestRejected(
                    "this model has no chat template", fix="give a prompt instead of messages, or name a template"
                )
            return self.encode_with(Template("own", own), messages)
        except RequestError as error:
            raise RequestRejected(error.message, fix=error.fix) from error

    def _pictured(self, messages: Sequence[Mapping[str, Any]], template: str) -> Sequence[Mapping[str, Any]]:
        """The messages with places for the images, where there are some, in the form that the template knows."""
        if not self._images:
            return messages
        placed = with_images([dict(message) for message in messages], self._images[0], len(self._images))
        return placed if "image" in template else flattened(placed, self._images[0])

    def split_stops(self, stop: Sequence[str]) -> Stops:
        """Return texts that end an answer, those that are one special token each by its id."""
        return split_stops(stop, self._tokenizer.get_added_tokens_decoder())

    def encode_with(self, template: Template, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Return the ids of chat messages through `template`. Raises RequestError where it takes no such messages."""
        text = template.render(self._pictured(messages, template.text), self._special)
        return self.encode(text, special=wants_special(text, self._special, own=template.text == self.chat_template))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token_text(self, id_: int) -> str:
        """Return one token's text, a special token's too."""
        text: str = self._tokenizer.decode([id_], skip_special_tokens=False)
        return text

    def __contains__(self, id_: int) -> bool:
        return self._tokenizer.id_to_token(id_) is not None

    def name_of(self, id_: int) -> str:
        """Return what the vocabulary calls a token; its number where it has none of that id."""
        name: str | None = self._tokenizer.id_to_token(id_)
        return f"[{id_}]" if name is None else name


def open_tokenizer(given: str | Path | Tokenizer) -> ClientTokenizer:
    """Take a tokenizer as it is, or read tokenizer.json at the path or in the folder. Raises EndpointError."""
    if not isinstance(given, str | Path):
        return ClientTokenizer(given)
    path = Path(given).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
        # A file may say how long its training texts were; prompts are not to be cut or filled up to that.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return ClientTokenizer(tokenizer, _special_in(file.parent))
    except Exception as error:  # `tokenizers` raises bare Exceptions
        raise EndpointError(
            f"there is no tokenizer to read at {given}: {error}", fix="give a tokenizer.json or a folder with one"
        ) from error


def from_files(files: TokenizerFiles) -> ClientTokenizer:
    """Return the tokenizer that a server sent. Raises ProtocolError where it is none."""
    try:
        text = gzip.decompress(base64.b64decode(files.tokenizer, validate=True)).decode()
        return ClientTokenizer(Tokenizer.from_str(text), files.special)
    except Exception as error:  # `tokenizers` raises bare Exceptions
        raise ProtocolError(f"the server's tokenizer cannot be read: {error}") from error


def _special_in(folder: Path) -> Mapping[str, Any]:
    """What tokenizer_config.json says, and chat_template.jinja, as Hugging Face folders hold them."""
    config = folder / "tokenizer_config.json"
    stated = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    special = {name: _content(value) for name, value in stated.items()}
    template = folder / "chat_template.jinja"
    if template.is_file():
        special["chat_template"] = template.read_text(encoding="utf-8")
    return special


def _content(value: Any) -> Any:
    """A token may be spelled out with its properties; its text is what counts."""
    return value["content"] if isinstance(value, dict) and "content" in value else value
