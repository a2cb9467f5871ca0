"""A batch: the JSON text `[[VERB, payload], …]` in which a client sends operations through Replicate.

A batch that is no such list is refused whole. Within one, every operation stands for itself: a bad one becomes
a `Failure`, the others go on.

Answers of one batch are told apart by `stream_id` alone, so the first operation that names one owns it, even if
that operation fails. A later operation with the same id fails too, and its failure is sent with `stream_id` null:
under the id it would end the owner's stream in the client's eyes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Raw

from cogsmith.errors import ProtocolError
from cogsmith.lmtp.messages import (
    OPERATIONS,
    Generate,
    Message,
    MessageError,
    ModelInfo,
    Operation,
    Score,
    StreamId,
    TokenError,
)
from cogsmith.lmtp.payload import UNREADABLE, dump_payload, parse_payload, shown

_SHAPE = 'send a JSON list of operations: [["GENERATE", {...}], ...]'
_KNOWN_VERBS = ", ".join(OPERATIONS)

_batch = msgspec.json.Decoder(list[Raw])
_pair = msgspec.json.Decoder(tuple[str, Raw])


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one batch may ask a server to hold. Anything larger is refused before work is spent on it."""

    max_bytes: int = 16 * 2**20
    """Bytes of the batch's text in UTF-8."""
    max_operations: int = 64
    max_prompt_ids: int = 1_000_000
    """Ids in one `prompt`, and in one `scored`."""
    max_bias_entries: int = 1_000_000
    """Entries of one `logit_bias`."""


DEFAULT_LIMITS = BatchLimits()
"""Room for the largest masks of today's vocabularies, several times over."""


class Failure(msgspec.Struct, frozen=True):
    """An operation that cannot be carried out. `stream_id` is None where its answer belongs to no stream."""

    verb: str | None
    stream_id: int | None
    message: str

    @property
    def reply(self) -> TokenError | MessageError:
        """The error item for the client: on the operation's own stream, where it has one."""
        if self.stream_id is None or self.verb == ModelInfo.verb:
            return MessageError(stream_id=self.stream_id, error=self.message)
        return TokenError(stream_id=self.stream_id, error=self.message)


class _Addressed(Message, frozen=True, kw_only=True):
    """What an operation of any verb has."""

    stream_id: StreamId


class Batch(msgspec.Struct, frozen=True):
    """A batch as sent: `items` in order, and `warnings` about what was ignored, for the server's log."""

    items: tuple[Operation | Failure, ...]
    warnings: tuple[str, ...] = ()

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations to carry out."""
        return tuple(item for item in self.items if not isinstance(item, Failure))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The operations that failed already."""
        return tuple(item for item in self.items if isinstance(item, Failure))


def serialize_batch(operations: Sequence[Operation]) -> str:
    """Return the batch's JSON text. Raises InternalError where JSON cannot hold a value."""
    pairs = (f"[{json.dumps(operation.verb)}, {dump_payload(operation)}]" for operation in operations)
    return f"[{', '.join(pairs)}]"


def parse_batch(text: str | bytes, limits: BatchLimits = DEFAULT_LIMITS) -> Batch:
    """Read a batch. Raises ProtocolError, and nothing else, where `text` is no batch within `limits`."""
    items: list[Operation | Failure] = []
    warnings: list[str] = []
    owners: dict[int, int] = {}
    for position, raw in enumerate(_split(text, limits), start=1):
        item = _parse_item(position, raw, limits, warnings)
        if item.stream_id is not None:
            owner = owners.setdefault(item.stream_id, position)
            if owner != position:
                item = _second_of_a_stream(position, item, owner)
        items.append(item)
    return Batch(tuple(items), tuple(warnings))


def _split(text: str | bytes, limits: BatchLimits) -> list[Raw]:
    """Return the operations' JSON texts, known to be JSON. Raises ProtocolError."""
    operations = _decode(_encode(text, limits.max_bytes))
    if not operations:
        raise ProtocolError("the batch is an empty list", fix=_SHAPE)
    if len(operations) > limits.max_operations:
        raise ProtocolError(
            f"the batch holds {len(operations)} operations, more than {limits.max_operations}",
            fix="send it as several batches",
        )
    return operations


def _encode(text: str | bytes, max_bytes: int) -> bytes:
    """Return the text in UTF-8. Raises ProtocolError where it is too long or no Unicode text."""
    try:
        data = text.encode() if isinstance(text, str) else text
        data.decode()
    except UnicodeError as error:
        raise ProtocolError(f"the batch is not Unicode text: {error}", fix="send it in UTF-8") from error
    if len(data) > max_bytes:
        raise ProtocolError(
            f"the batch is {len(data)} bytes long, more than {max_bytes}", fix="send it as several batches"
        )
    return data


def _decode(data: bytes) -> list[Raw]:
    """Return the items of a JSON list. Raises ProtocolError for anything else."""
    try:
        return _batch.decode(data)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the batch is {shown(data)}, not a list", fix=_SHAPE) from error
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the batch is not JSON: {error}", fix=f"{_SHAPE}, no NaN or Infinity") from error
    except RecursionError as error:
        raise ProtocolError("the batch is nested too deeply", fix=_SHAPE) from error


def _parse_item(position: int, raw: Raw, limits: BatchLimits, warnings: list[str]) -> Operation | Failure:
    """Read the operation at `position` (1-based); adds to `warnings` what was ignored in it."""
    try:
        verb, payload = _pair.decode(raw)
    except UNREADABLE:
        return Failure(None, None, f"operation {position} is {shown(raw)} (give [VERB, payload])")
    kind = OPERATIONS.get(verb)
    if kind is None:
        stream_id = parse_payload(_Addressed, payload).stream_id
        return Failure(
            None, stream_id, f"operation {position}: unknown verb {shown(verb)} (give one of {_KNOWN_VERBS})"
        )
    parsed = parse_payload(kind, payload)
    if parsed.unknown:
        names = shown(json.dumps(parsed.unknown).encode())
        warnings.append(f"operation {position} ({verb}): ignored fields that LMTP 1.0 does not have: {names}")
    faults = [*parsed.faults, *_excesses(parsed.message, limits)]
    if parsed.message is None or faults:
        return Failure(verb, parsed.stream_id, f"operation {position} ({verb}): {'; '.join(faults)}")
    return parsed.message


def _second_of_a_stream(position: int, item: Operation | Failure, owner: int) -> Failure:
    """Return the failure of an operation whose `stream_id` is the `owner`'s already: see the module's text."""
    return Failure(
        item.verb,
        None,
        f"operation {position}: stream_id is {item.stream_id}, as in operation {owner}"
        " (give each operation of a batch its own)",
    )


def _excesses(operation: Operation | None, limits: BatchLimits) -> Iterator[str]:
    """Yield which of the operation's collections are larger than `limits` allow."""
    sizes: list[tuple[str, int, int]] = []
    match operation:
        case Generate(prompt=prompt, logit_bias=bias):
            sizes = [("prompt", len(prompt), limits.max_prompt_ids), ("logit_bias", len(bias), limits.max_bias_entries)]
        case Score(prompt=prompt, scored=scored):
            sizes = [("prompt", len(prompt), limits.max_prompt_ids), ("scored", len(scored), limits.max_prompt_ids)]
    for name, size, most in sizes:
        if size > most:
            yield f"{name} has {size} entries (give at most {most})"
