"""A batch: the JSON text `[[VERB, payload], …]` in which a client sends operations through Replicate.

A batch that is no such list is refused whole. Within one, every operation stands for itself: a bad one becomes
a `Failure`, the others go on. Definitions (see `handles`) are no operations; they are put where they are named.

Answers of one batch are told apart by `stream_id` alone, so the first operation that names one owns it, even if
that operation fails. A later operation with the same id fails too, and its failure is sent with `stream_id` null:
under the id it would end the owner's stream in the client's eyes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from cogsmith.errors import ProtocolError
from cogsmith.lmtp.handles import Define
from cogsmith.lmtp.limits import DEFAULT_LIMITS, BatchLimits
from cogsmith.lmtp.operations import Failure, OperationReader
from cogsmith.lmtp.payload import UNREADABLE, dump_payload, shown
from cogsmith.lmtp.sharing import factor_out
from cogsmith.lmtp.versions import AnyOperation

_SHAPE = 'send a JSON list of operations: [["GENERATE", {...}], ...]'

_batch = msgspec.json.Decoder(list[Raw])
_pair = msgspec.json.Decoder(tuple[str, Raw])


class Batch(msgspec.Struct, frozen=True):
    """A batch as sent: `items` in order, and `warnings` about what was ignored, for the server's log."""

    items: tuple[AnyOperation | Failure, ...]
    warnings: tuple[str, ...] = ()

    @property
    def operations(self) -> tuple[AnyOperation, ...]:
        """The operations to carry out."""
        return tuple(item for item in self.items if not isinstance(item, Failure))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The operations that failed already."""
        return tuple(item for item in self.items if isinstance(item, Failure))


def serialize_batch(operations: Sequence[AnyOperation]) -> str:
    """Return the batch's JSON text. What operations of 1.1 have in common is defined once and named.

    Raises InternalError where JSON cannot hold a value.
    """
    definitions, uses = factor_out(operations)
    payloads = [(one.verb, dump_payload(one)) for one in definitions]
    payloads += [(one.verb, dump_payload(one, uses.get(i, {}))) for i, one in enumerate(operations)]
    return f"[{', '.join(f'[{json.dumps(verb)}, {payload}]' for verb, payload in payloads)}]"


def parse_batch(text: str | bytes, limits: BatchLimits = DEFAULT_LIMITS) -> Batch:
    """Read a batch. Raises ProtocolError, and nothing else, where `text` is no batch within `limits`."""
    reader = OperationReader(limits)
    for position, raw in enumerate(_split(text, limits), start=1):
        reader.read(position, raw)
    if not reader.items:
        raise ProtocolError("the batch holds definitions and no operation", fix=_SHAPE)
    return Batch(tuple(reader.items), tuple(reader.warnings))


def _split(text: str | bytes, limits: BatchLimits) -> list[Raw]:
    """Return the operations' JSON texts, known to be JSON. Raises ProtocolError."""
    items = _decode(_encode(text, limits.max_bytes))
    if not items:
        raise ProtocolError("the batch is an empty list", fix=_SHAPE)
    num_definitions = sum(map(_defines, items[: 2 * limits.max_operations]))
    num_operations = len(items) - min(num_definitions, limits.max_operations)
    if num_operations > limits.max_operations:
        raise ProtocolError(
            f"the batch holds {num_operations} operations, more than {limits.max_operations}",
            fix="send it as several batches",
        )
    return items


def _defines(raw: Raw) -> bool:
    try:
        return _pair.decode(raw)[0] == Define.verb
    except UNREADABLE:
        return False


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
