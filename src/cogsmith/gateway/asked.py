"""What a batch asked for, read no further than it takes to end its streams well."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from cogsmith import lmtp


class Operation(msgspec.Struct):
    """What must be known of an operation to end its stream."""

    stream_id: int
    lmtp: str | None = None


_batch = msgspec.json.Decoder(list[Raw])
_operation = msgspec.json.Decoder(tuple[str, Operation])


def operations(batch_json: str) -> list[tuple[str, Operation]]:
    """The verbs and operations that name a stream. Of all others the model says what is wrong, on no stream.

    Raises msgspec.DecodeError, UnicodeEncodeError or RecursionError where the text is no list of JSON.
    """
    return [operation for item in _batch.decode(batch_json) if (operation := _readable(item))]


def plain_failure(stream_id: int, verb: str, reason: str) -> lmtp.AnyReply:
    """What ends a stream of LMTP 1.0 for `reason`."""
    if verb == lmtp.ModelInfo.verb:
        return lmtp.MessageError(stream_id=stream_id, error=reason)
    return lmtp.TokenError(stream_id=stream_id, error=reason)


def last_words(batch_json: object, reason: str) -> str:
    """The lines that tell the streams of a batch why they get no answer; empty for a batch that is not all of LMTP 1.0.

    A client of 1.1 looks at the prediction itself. LMQL 0.7.3 does not: without an item it fails with an IndexError.
    """
    try:
        asked = operations(batch_json) if isinstance(batch_json, str) else []
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return ""
    if any(operation.lmtp is not None for _, operation in asked):
        return ""
    return "".join(lmtp.encode_line(plain_failure(operation.stream_id, verb, reason)) for verb, operation in asked)


def _readable(item: Raw) -> tuple[str, Operation] | None:
    try:
        return _operation.decode(item)
    except (msgspec.DecodeError, RecursionError):
        return None
