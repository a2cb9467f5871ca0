"""Inputs and outputs of predictions that speak LMTP 1.0, and what the output should be."""

from __future__ import annotations

import json
from typing import Any

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
