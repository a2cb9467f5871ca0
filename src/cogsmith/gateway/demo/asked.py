"""What a request of the page may say. Everything else in it is refused, with the name of the field."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from cogsmith.errors import RequestRejected
from cogsmith.manifest import MAX_IMAGES, ImageTransform
from cogsmith.prompts.messages import behind_images

MAX_ALTERNATIVES = 20
MAX_OPTIONS = 64
IMAGE_KINDS = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")
"""Those that both browsers and the container can open."""

Probability = Annotated[float, Meta(ge=0, le=1)]
# An image itself, never the address of one: what the page asks for is fetched from nowhere.
Image = Annotated[str, Meta(pattern=f"^data:(?:{'|'.join(IMAGE_KINDS)});base64,")]
Images = Annotated[tuple[Image, ...], Meta(max_length=MAX_IMAGES)]
Ids = Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=100_000)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person or the model said. `input` is what an instruction is about; `images` came with what was said."""

    role: str
    content: str
    input: str = ""
    images: Images = ()

    def to_dict(self, placeholder: str = "") -> dict[str, Any]:
        """As templates take it: its images come first, unless the text says with the `placeholder` where they are."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.images and placeholder not in self.content:
            message = behind_images(message, len(self.images))
        return message | ({"input": self.input} if self.input else {})


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A prompt: `messages` through the template of that id, or `text` as it is, with its `images`."""

    messages: tuple[Message, ...] = ()
    template: str = ""
    system: str = ""
    text: str | None = None
    images: Images = ()
    image_transform: ImageTransform | Literal[""] = ""

    @property
    def all_images(self) -> tuple[str, ...]:
        """Those of the text and of every message, in order."""
        return (*self.images, *(image for message in self.messages for image in message.images))


class Generation(Asked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A continuation is wanted. `begun` are the ids of its beginning that are settled already."""

    begun: Ids = ()
    max_tokens: Annotated[int, Meta(ge=1)] = 128
    temperature: Probability = 0.1
    top_p: Probability = 0.75
    seed: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    alternatives: Annotated[int, Meta(ge=0, le=MAX_ALTERNATIVES)] = 8
    constraint: dict[str, Any] | None = None


class Comparison(Asked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How likely each option is as what follows."""

    options: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1, max_length=MAX_OPTIONS)]


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How likely each token of a text is after those before it."""

    text: Annotated[str, Meta(min_length=1)]
    alternatives: Annotated[int, Meta(ge=0, le=MAX_ALTERNATIVES)] = 8


T = TypeVar("T", Generation, Comparison, Reading)


def read(body: dict[str, Any], kind: type[T]) -> T:
    """Return what the body asks for. Raises RequestRejected."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise RequestRejected(str(error)) from error
