"""LMTP, the Language Model Transport Protocol, versions 1.0 and 1.1: messages, lines, batches.

No I/O happens here, and nothing heavy is imported: both sides of the wire use this package. The protocol itself
is described in docs/protocol.md.
"""

from __future__ import annotations

from cogsmith.lmtp.batch import Batch, parse_batch, serialize_batch
from cogsmith.lmtp.embedding import Embed, Embedded
from cogsmith.lmtp.extended import (
    Allow,
    Cancel,
    Cancelled,
    Constraint,
    End,
    EndReason,
    ExtendedFinishReason,
    ExtendedGenerate,
    ExtendedScore,
    ExtendedToken,
    GetTokenizer,
    Timing,
    TokenizerFiles,
    Usage,
    tokenizer_digest,
)
from cogsmith.lmtp.limits import DEFAULT_LIMITS, BatchLimits
from cogsmith.lmtp.lines import MAX_LINE, LineReader, encode_items, encode_line, parse_line
from cogsmith.lmtp.masks import bitset, pack_mask
from cogsmith.lmtp.messages import (
    TOKENS_BEFORE_COMMITTED,
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
from cogsmith.lmtp.operations import Failure
from cogsmith.lmtp.versions import AnyOperation, AnyReply, ExtendedOperation, ExtendedReply

__all__ = [
    "DEFAULT_LIMITS",
    "MAX_LINE",
    "TOKENS_BEFORE_COMMITTED",
    "Allow",
    "AnyOperation",
    "AnyReply",
    "Batch",
    "BatchLimits",
    "Cancel",
    "Cancelled",
    "Constraint",
    "Embed",
    "Embedded",
    "End",
    "EndReason",
    "ExtendedFinishReason",
    "ExtendedGenerate",
    "ExtendedOperation",
    "ExtendedReply",
    "ExtendedScore",
    "ExtendedToken",
    "Failure",
    "FinishReason",
    "Generate",
    "GetTokenizer",
    "Info",
    "LineReader",
    "MessageError",
    "ModelInfo",
    "Operation",
    "Reply",
    "Score",
    "Timing",
    "Token",
    "TokenError",
    "TokenizerFiles",
    "Usage",
    "bitset",
    "encode_items",
    "encode_line",
    "pack_mask",
    "parse_batch",
    "parse_line",
    "serialize_batch",
    "tokenizer_digest",
]
