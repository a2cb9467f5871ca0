"""The messages of LMTP 1.1 for models that give vectors.

    client   Embed     EMBED   turn texts into vectors, or into hidden states
    server   Embedded  MSG     the answer, all at once; where there is none, an END says why

An `Embed` has no branches. Its texts are given as texts, which the server's tokenizer encodes, or as token ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from cogsmith.lmtp.extended import VERSION, CancelKey, Version
from cogsmith.lmtp.messages import MAX_INTEGER, MIN_INTEGER, Message, ModelName, Positive, StreamId, TokenId, TokenIds

LayerNumber = Annotated[int, Meta(ge=MIN_INTEGER, le=MAX_INTEGER)]

Layers = Annotated[
    Literal["last", "all"] | tuple[LayerNumber, ...],
    Meta(description='"last", "all" or a list of layer numbers'),
]
"""Which layers' outputs are wanted; numbers from 0."""

Pooling = Annotated[
    Literal["mean", "cls", "last", "max", "none"], Meta(description='"mean", "cls", "last", "max" or "none"')
]

Flag = Annotated[bool, Meta(description="true or false")]

Numbers = Annotated[list[Any], Meta(description="lists of numbers")]
"""For each text a vector, or one for each of its tokens."""


class Embed(Message, frozen=True, kw_only=True):
    """Turn texts into vectors. One of `texts` and `inputs` is given."""

    verb: ClassVar[str] = "EMBED"
    always_sent: ClassVar[tuple[str, ...]] = ("lmtp",)

    lmtp: Version = VERSION
    texts: Annotated[tuple[str, ...] | None, Meta(description="a list of texts")] = None
    inputs: Annotated[tuple[TokenIds, ...] | None, Meta(description="a list of lists of token ids")] = None
    """The texts' ids, with the special tokens that the model wants."""
    layers: Layers = "last"
    embedding: Flag = False
    """Whether the output of the embedding is wanted too."""
    pooling: Pooling | None = None
    """How a text's vectors become one; None is what the model was trained with."""
    normalize: Flag | None = None
    """Whether vectors are brought to length 1; None is what the model was trained with."""
    padding_side: Annotated[Literal["left", "right"], Meta(description='"left" or "right"')] | None = None
    """Pads the texts of this operation to the longest of them; so does `padding_id`."""
    padding_id: TokenId | None = None
    truncate: Flag = False
    """Whether texts that are too long are cut, at the length that the model was trained with where it says one."""
    deadline_ms: Positive | None = None
    cancel_key: CancelKey | None = None
    model: ModelName = None
    stream_id: StreamId


class Embedded(Message, frozen=True, kw_only=True):
    """The answer to EMBED. Of `vectors`, `last_hidden_state` and `layers` one is there, by what was asked for.

    `vectors` are pooled; without pooling it is `last_hidden_state`. `layers` holds the same by the layer's number.
    """

    verb: ClassVar[str] = "MSG"
    always_sent: ClassVar[tuple[str, ...]] = ("token_ids",)

    stream_id: StreamId
    token_ids: Annotated[list[list[TokenId]], Meta(description="a list of lists of token ids")]
    """What the model read: padded, where padding was asked for."""
    vectors: Numbers | None = None
    last_hidden_state: Numbers | None = None
    layers: Annotated[Mapping[int, list[Any]] | None, Meta(description="an object by layer number")] = None
    embedding: Numbers | None = None
    pooling: Pooling
    normalize: Flag
    padding_id: TokenId | None = None


def contradictions(operation: msgspec.Struct) -> Iterator[str]:
    """Yield what the fields of an Embed do not say together; nothing for any other operation."""
    if isinstance(operation, Embed) and (operation.texts is None) == (operation.inputs is None):
        said = "neither texts nor inputs is there" if operation.texts is None else "both texts and inputs are there"
        yield f"{said} (give one of them)"
