"""LMQL as it is, for `test_lmql_*.py`. It knows one host only; its requests to that one go to the gateway instead."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import aiohttp
import lmql
from answering import answer_calls

HOSTED = "https://api.replicate.com"

_request = aiohttp.ClientSession._request


async def _redirected(self: aiohttp.ClientSession, method: str, url: Any, **options: Any) -> aiohttp.ClientResponse:
    return await _request(self, method, str(url).replace(HOSTED, os.environ["GATEWAY_URL"]), **options)


aiohttp.ClientSession._request = _redirected

MODEL = lmql.model(os.environ["MODEL"], endpoint=os.environ["ENDPOINT"], tokenizer=os.environ["TOKENIZER"])


async def query(code: str, **options: Any) -> list[dict[str, Any]]:
    """Run a query; return the text and variables of each of its results."""
    results = await lmql.run(code, model=MODEL, **options)
    return [_as_json(result) for result in (results if isinstance(results, list) else [results])]


async def queries_at_once(codes: list[str]) -> list[list[dict[str, Any]]]:
    """Run queries side by side over the one model."""
    return await asyncio.gather(*(query(code) for code in codes))


async def score(prompt: str, options: list[str]) -> list[list[float]]:
    """Return the log-probabilities of each option's tokens after `prompt`."""
    result = await MODEL.score(prompt, options)
    return [logprobs.tolist() for logprobs in result.token_scores]


async def generate(prompt: str, max_tokens: int) -> str:
    """Return what the model's own `generate` returns."""
    return await MODEL.generate(prompt, max_tokens=max_tokens)


async def traced_generations(code: str) -> list[dict[str, Any]]:
    """Run a query under LMQL's tracer; return what it noted of each GENERATE."""
    with lmql.traced("query") as tracer:
        await query(code)
    (traced,) = json.loads(str(lmql.certificate(tracer)))["children"]
    return [event["data"] for event in traced["events"] if event["name"] == "lmtp.generate"]


def _as_json(result: Any) -> dict[str, Any]:
    """Sort a result's variables, where `P(X)` holds the distribution over X's values."""
    values = {name: value for name, value in result.variables.items() if "P(" not in name}
    distributions = {name: result.variables.get(f"P({name})") for name in values}
    return {
        "text": result.prompt,
        "variables": values,
        "distributions": {
            name: [(value, float(p)) for value, p in pairs] for name, pairs in distributions.items() if pairs
        },
    }


answer_calls(query, queries_at_once, score, generate, traced_generations)
