"""Inputs and outputs of predictions that speak LMTP, and what the output should be."""

from __future__ import annotations

import json
from typing import Any

from cogsmith import lmtp as protocol
from cogsmith.client.cog_server import Prediction

from ..engine.models import plain_logprobs


def lmtp(prompt: list[int], **fields: Any) -> dict[str, str]:
    """Return the inputs of a prediction that is one GENERATE."""
    return {"ops_batch_json": json.dumps([["GENERATE", {"prompt": prompt, "stream_id": 1, **fields}]])}


def items(output: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("TOKEN ")) for line in output.splitlines()]


def tokens(output: str) -> list[int]:
    return [item["token"] for item in items(output)]


def is_plain_greedy(model: Any, prompt: list[int], made: list[int]) -> bool:
    """Whether each token is the plain model's likeliest after those before it: one forward pass for them all."""
    rows = plain_logprobs(model, [*prompt, *made])
    return bool(made) and made == rows[len(prompt) - 1 : -1].argmax(-1).tolist()


def replies(url: str, *operations: Any) -> list[Any]:
    """Run a batch on a Cog server; return all answers."""
    text = "".join(Prediction(url, {"ops_batch_json": protocol.serialize_batch(operations)}).chunks())
    return [reply for line in text.splitlines() for reply in protocol.parse_line(line)]
