"""LMTP, the Language Model Transport Protocol, version 1.0: messages, lines, batches.

No I/O happens here, and nothing heavy is imported: both sides of the wire use this package. The protocol itself
is described in docs/2-protocol.md.
"""

from __future__ import annotations

from cogsmith.lmtp.batch import DEFAULT_LIMITS, Batch, BatchLimits, Failure, parse_batch, serialize_batch
from cogsmith.lmtp.lines import MAX_LINE, LineReader, encode_items, encode_line, parse_line
from cogsmith.lmtp.messages import (
    FinishReason,
    Generate,
    Info,
    MessageError,
    ModelInfo,
    Operation,
    Reply,
    Score,
    Token,
    TokenError,
)

__all__ = [
    "DEFAULT_LIMITS",
    "MAX_LINE",
    "Batch",
    "BatchLimits",
    "Failure",
    "FinishReason",
    "Generate",
    "Info",
    "LineReader",
    "MessageError",
    "ModelInfo",
    "Operation",
    "Reply",
    "Score",
    "Token",
    "TokenError",
    "encode_items",
    "encode_line",
    "parse_batch",
    "parse_line",
    "serialize_batch",
]
