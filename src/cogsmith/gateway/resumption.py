"""What a model still owes after its answer was cut.

LMTP 1.0 has no word for an interruption: LMQL 0.7.3 waits for ever on a stream that ends late with an error, and over a
WebSocket on one that just ends. So the gateway itself asks for the rest, from where the stream was. Clients of 1.1 are
told, and decide.
"""

from __future__ import annotations

from collections.abc import Iterable

from cogsmith import lmtp
from cogsmith.errors import ProtocolError
from cogsmith.lmtp.continuation import can_continue, continued, continued_score


def rest_of(batch_json: str, output: Iterable[str]) -> str | None:
    """Return the batch that asks for what `output`, chunks of whole lines, lacks of the answer to `batch_json`.

    Empty where it lacks nothing; None where part of it cannot be asked for: an operation of LMTP 1.1, or one whose next
    token does not follow from the text so far. A sampled continuation goes on with other draws of the same chances.
    """
    try:
        operations = lmtp.parse_batch(batch_json).operations
        replies = [reply for chunk in output for line in chunk.splitlines() for reply in lmtp.parse_line(line)]
    except ProtocolError:
        return None
    owed: dict[int | None, lmtp.AnyOperation] = {operation.stream_id: operation for operation in operations}
    ids: dict[int | None, list[int]] = {stream_id: [] for stream_id in owed}
    for reply in replies:
        if isinstance(reply, lmtp.Token) and reply.stream_id in ids:
            ids[reply.stream_id].append(reply.token)
        if _is_last(reply):
            owed.pop(reply.stream_id, None)
    rest = [_rest(operation, ids[stream_id]) for stream_id, operation in owed.items()]
    possible = [operation for operation in rest if operation is not None]
    if len(possible) < len(rest):
        return None
    return lmtp.serialize_batch(possible) if possible else ""


def _is_last(reply: lmtp.AnyOperation | lmtp.AnyReply) -> bool:
    """Whether a reply of 1.0 ends its stream."""
    match reply:
        case lmtp.Token(finish_reason=reason):
            return reason is not None
        case lmtp.TokenError() | lmtp.Info() | lmtp.MessageError():
            return True
    return False


def _rest(operation: lmtp.AnyOperation, ids: list[int]) -> lmtp.AnyOperation | None:
    match operation:
        case lmtp.ExtendedGenerate() | lmtp.ExtendedScore() | lmtp.Embed() | lmtp.Cancel() | lmtp.GetTokenizer():
            return None
        case lmtp.Generate():
            return continued(operation, ids) if not ids or can_continue(operation) else None
        case lmtp.Score():
            return continued_score(operation, len(ids))
    return operation
